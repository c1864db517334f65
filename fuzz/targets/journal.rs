//! A journal's lines, without their checksums: a character, then steps. Whatever reads is replayed by a
//! machine, which must live through any history, however unlikely (P-60, P-62).
#![no_main]

use connito_protocol::machine::{Character, Machine, Step};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let Some(Ok(character)) = lines.next().map(serde_json::from_slice::<Character>) else {
        return;
    };
    let mut machine = Machine::new(&character);
    for step in lines.map_while(|line| serde_json::from_slice::<Step>(line).ok()) {
        let effects = machine.handle(&step.event);
        let again = serde_json::to_vec(&Step {
            event: step.event,
            effects,
        });
        assert!(again.is_ok_and(|line| serde_json::from_slice::<Step>(&line).is_ok()));
    }
});
