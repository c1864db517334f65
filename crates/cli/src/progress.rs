//! How far a command has come that moves many bytes: a bar on standard error, if that is a terminal.

use connito_engine::checkpoint::Progress;
use indicatif::{ProgressBar, ProgressStyle};

/// A bar of bytes.
#[derive(Debug)]
pub(crate) struct ByteBar(ProgressBar);

impl ByteBar {
    /// A bar that is named by what is being done.
    pub(crate) fn new(what: &'static str) -> Self {
        let template = "{msg} {bar:40} {bytes}/{total_bytes}  {bytes_per_sec}, {eta} left";
        let bar = ProgressBar::new(0).with_message(what);
        let style = ProgressStyle::with_template(template);
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self(bar)
    }

    /// Moves the bar.
    pub(crate) fn show(&mut self, progress: Progress) {
        self.0.set_length(progress.total);
        self.0.set_position(progress.done);
    }

    /// Takes the bar off the screen.
    pub(crate) fn clear(&self) {
        self.0.finish_and_clear();
    }
}
