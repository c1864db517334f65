//! Announcements: whatever decodes is what would be encoded (P-10).
#![no_main]

use connito_protocol::announcement::Announcement;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some(announcement) = Announcement::decode(bytes) {
        assert_eq!(announcement.encode(), bytes);
    }
});
