//! The embedded chain: a Substrate node in miniature, for one machine and for tests.

mod storage;
