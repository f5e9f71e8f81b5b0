//! Questions to a person at a terminal. Where there is none, nobody is asked.

use crate::cli::Failure;
use std::io::{self, BufRead, IsTerminal, Write};

/// Asks and hears.
pub struct Asker {
    heard: Box<dyn BufRead>,
    said: Box<dyn Write>,
}

impl Asker {
    /// Of this process, if a person is there to answer.
    pub fn of_terminal() -> Option<Self> {
        let is_there = io::stdin().is_terminal() && io::stderr().is_terminal();
        is_there.then(|| Asker::new(Box::new(io::stdin().lock()), Box::new(io::stderr())))
    }

    pub fn new(heard: Box<dyn BufRead>, said: Box<dyn Write>) -> Self {
        Asker { heard, said }
    }

    /// One answer, as it was written; empty where there is none.
    fn line(&mut self, question: &str) -> Result<String, Failure> {
        let gone = |error| Failure::midway(format!("the terminal cannot be used: {error}"));
        write!(self.said, "{question}: ").and_then(|()| self.said.flush()).map_err(gone)?;
        let mut line = String::new();
        match self.heard.read_line(&mut line).map_err(gone)? {
            0 => Err(Failure::input("nobody answers any more; no run was made. Flags answer too: see `new --help`")),
            _ => Ok(line.trim().to_owned()),
        }
    }

    /// Asks until there is an answer that can be used. Without one, `otherwise` is.
    pub fn ask<T>(
        &mut self,
        question: &str,
        otherwise: Option<&str>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, Failure> {
        let shown = otherwise.map_or_else(|| question.to_owned(), |otherwise| format!("{question} [{otherwise}]"));
        loop {
            let line = self.line(&shown)?;
            let answer = if line.is_empty() { otherwise.unwrap_or_default() } else { &line };
            match parse(answer) {
                Ok(answer) => return Ok(answer),
                Err(_) if answer.is_empty() => {}
                Err(why) => self.tell(&why)?,
            }
        }
    }

    /// Asks for what may be left open.
    pub fn ask_or_not<T>(
        &mut self,
        question: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Failure> {
        self.ask(question, None, |answer| if answer.is_empty() { Ok(None) } else { parse(answer).map(Some) })
    }

    /// Asks whether; without an answer, yes.
    pub fn yes(&mut self, question: &str) -> Result<bool, Failure> {
        self.ask(question, Some("Y/n"), |answer| match answer.to_lowercase().as_str() {
            "y/n" | "y" | "yes" => Ok(true),
            "n" | "no" => Ok(false),
            _ => Err("answer yes or no".to_owned()),
        })
    }

    fn tell(&mut self, words: &str) -> Result<(), Failure> {
        writeln!(self.said, "  {words}")
            .map_err(|error| Failure::midway(format!("the terminal cannot be used: {error}")))
    }
}

/// A number of tokens as people write it.
pub fn tokens(text: &str) -> Result<u64, String> {
    let small = text.trim().to_lowercase().replace('_', "");
    let (digits, unit) = match small.strip_suffix(['k', 'm', 'b', 't', 'g']) {
        Some(digits) => (digits, small.chars().next_back()),
        None => (small.as_str(), None),
    };
    let unit = match unit {
        Some('k') => 1e3,
        Some('m') => 1e6,
        Some('b' | 'g') => 1e9,
        Some('t') => 1e12,
        _ => 1.0,
    };
    let number = digits.trim().parse::<f64>().ok().map(|number| (number * unit).round());
    let found = number.filter(|number| (1.0..=1e18).contains(number)).map(|number| number as u64);
    found.ok_or_else(|| "a number of tokens is needed, as in 5000000, 500M or 2B".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn asker(answers: &'static str) -> Asker {
        Asker::new(Box::new(Cursor::new(answers)), Box::new(io::sink()))
    }

    fn number(text: &str) -> Result<u32, String> {
        text.parse().map_err(|_| "no number".into())
    }

    #[test]
    fn a_question_is_repeated_until_there_is_an_answer_or_nobody() {
        assert_eq!(asker("x\n\n7\n").ask("?", None, number).map_err(Failure::why), Ok(7));
        assert_eq!(asker("\n").ask("?", Some("5"), number).map_err(Failure::why), Ok(5));
        assert_eq!(asker("\n").ask_or_not("?", number).map_err(Failure::why), Ok(None));
        assert_eq!(asker("x\n8").ask_or_not("?", number).map_err(Failure::why), Ok(Some(8)));
        assert!(asker("x\n").ask("?", None, number).unwrap_err().why().contains("nobody answers"));
        for (answers, wanted) in [("\n", true), ("Yes\n", true), ("maybe\nN\n", false)] {
            assert_eq!(asker(answers).yes("?").map_err(Failure::why), Ok(wanted), "{answers}");
        }
    }

    #[test]
    fn tokens_are_written_as_people_write_them() {
        for (text, wanted) in [
            ("5000000", 5_000_000),
            ("500M", 500_000_000),
            ("2b", 2_000_000_000),
            ("1.5 T", 1_500_000_000_000),
            ("1e6", 1_000_000),
        ] {
            assert_eq!(tokens(text), Ok(wanted), "{text}");
        }
        for text in ["", "M", "0", "-1", "many", "nan", "inf", "1e30", "2X"] {
            assert!(tokens(text).unwrap_err().contains("500M"), "{text}");
        }
    }
}
