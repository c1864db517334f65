//! Signed calls of any bytes, carried out: blocks are made whatever is in them, and two chains that hear the same
//! make the same blocks.
//!
//! Steps of `account u8 ‖ length u8 ‖ call`. The account's highest bit says that a block comes first; a length of
//! 255 takes all that is left.
#![no_main]

use connito_chain::embedded::EmbeddedChain;
use connito_fuzz::chain;

/// Calls in one history. Nearly all of its time goes into blocks, so there are few.
const MAX_CALLS: usize = 6;
const BLOCK_FIRST: u8 = 0x80;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let (one, other) = (chain::new(), chain::new());
    let both = [&*one, &*other];
    let mut rest = bytes;
    for _ in 0..MAX_CALLS {
        let Some((&[account, length], behind)) = rest.split_first_chunk() else {
            break;
        };
        let length = match length {
            u8::MAX => behind.len(),
            length => usize::from(length).min(behind.len()),
        };
        let (call, behind) = behind.split_at(length);
        rest = behind;
        if account & BLOCK_FIRST != 0 {
            make_block(both);
        }
        let account = usize::from(account & !BLOCK_FIRST);
        let message = chain::signed(&one, account, chain::nonce(&one, account), call);
        assert_eq!(one.submit(&message).is_ok(), other.submit(&message).is_ok());
    }
    make_block(both);
});

fn make_block(chains: [&EmbeddedChain; 2]) {
    let [one, other] = chains.map(|chain| {
        let before = chain.head();
        let after = chain.advance(1).expect("kept in memory");
        assert_eq!(after.parent, before.hash);
        after
    });
    assert_eq!(one, other);
}
