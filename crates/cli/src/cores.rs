//! How many threads compute, where the command line leaves it open: one for each core.

/// As many threads as were asked for, or as the machine has cores.
pub(crate) fn threads(wanted: Option<u16>) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    wanted.map_or_else(cores, usize::from)
}
