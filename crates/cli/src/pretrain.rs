//! `connito pretrain`: makes the base model, or finds it in the cache, and says where it is.

use std::time::Instant;

use anyhow::anyhow;
use connito_engine::pretrain::PretrainProgress;
use indicatif::{ProgressBar, ProgressStyle};

use crate::args::PretrainArguments;
use crate::base::{Base, Progress};
use crate::corpus::Corpus;
use crate::exit::{Blame, Failure};
use crate::output::print;

/// Runs the command.
pub(crate) fn run(arguments: &PretrainArguments) -> Result<(), Failure> {
    if let Some(out) = arguments
        .out
        .as_ref()
        .filter(|out| out.exists() && !out.is_dir())
    {
        return Err(Failure::Input(anyhow!("{} is not a folder", out.display())));
    }
    let corpus = Corpus::load(&arguments.text.data, arguments.seed).input()?;
    let mut bar = Bar {
        bar: ProgressBar::new(0),
        begun: Instant::now(),
    };
    let (base, folder) = Base::for_corpus(&corpus, arguments.seed, &mut bar)?;
    bar.bar.finish_and_clear();
    let folder = match &arguments.out {
        Some(out) => {
            base.save(out)?;
            out
        }
        None => &folder,
    };
    print(&folder.display().to_string())
}

/// A progress bar on standard error.
struct Bar {
    bar: ProgressBar,
    begun: Instant,
}

impl Progress for Bar {
    fn stage(&mut self, what: &str) {
        self.bar.suspend(|| eprintln!("{what}"));
        self.begun = Instant::now();
    }

    fn step(&mut self, progress: PretrainProgress) {
        if progress.step == 1 {
            let style = ProgressStyle::with_template("{bar:40} {pos}/{len} steps  {msg}");
            self.bar
                .set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            self.bar.set_length(progress.steps as u64);
        }
        let rate = progress.tokens as f64 / self.begun.elapsed().as_secs_f64().max(1e-9);
        self.bar
            .set_message(format!("loss {:.3}, {rate:.0} tokens/s", progress.loss));
        self.bar.set_position(progress.step as u64);
    }
}
