//! `strait completions <shell>`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, Exit, Failure, Screen};

/// Which shell.
#[derive(Clone, Debug, Args)]
pub struct CompletionsArgs {
    /// The shell to complete in
    pub shell: Shell,
}

pub(super) fn main(args: &CompletionsArgs, screen: &mut Screen<'_>) -> Result<Exit, Failure> {
    // The generator panics where it cannot write: it gets memory, the screen gets the text.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "strait", &mut script);
    screen.out.write_all(&script)?;
    Ok(Exit::Ok)
}
