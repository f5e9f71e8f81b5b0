//! Tokens become text one at a time. What a token stands for depends on those before it: the space before a word, the
//! bytes of one character. So a few tokens are decoded together, and what they add is given out once it is whole.

/// Tokens that are held back at most for the rest of a character; no character takes more.
const HELD_BACK_MAX: usize = 8;
/// Tokens of the prompt that the first token's text may depend on.
const BEFORE_TOKENS: usize = 16;

/// Text that is still being written; `decode` gives the text of tokens as a whole.
pub struct TextStream<D> {
    decode: D,
    tokens: Vec<u32>,
    /// Tokens whose text was given out.
    given: usize,
}

impl<D, E> TextStream<D>
where
    D: Fn(&[u32]) -> Result<String, E>,
{
    /// Goes on behind a prompt's tokens.
    pub fn new(prompt: &[u32], decode: D) -> Self {
        let tokens = prompt[prompt.len().saturating_sub(BEFORE_TOKENS)..].to_vec();
        let given = tokens.len();
        TextStream { decode, tokens, given }
    }

    /// The text that a token adds; empty while a character is not whole.
    pub fn push(&mut self, token: u32) -> Result<String, E> {
        self.tokens.push(token);
        let text = self.added()?;
        let is_held_back =
            text.ends_with(char::REPLACEMENT_CHARACTER) && self.tokens.len() - self.given <= HELD_BACK_MAX;
        if text.is_empty() || is_held_back {
            return Ok(String::new());
        }
        // The tokens just given out say how the next ones go on.
        self.tokens.drain(..self.given);
        self.given = self.tokens.len();
        Ok(text)
    }

    /// What was held back, at the end.
    pub fn finish(self) -> Result<String, E> {
        self.added()
    }

    /// What the tokens behind those given out add to their text.
    fn added(&self) -> Result<String, E> {
        let before = (self.decode)(&self.tokens[..self.given])?;
        let all = (self.decode)(&self.tokens)?;
        let same =
            before.chars().zip(all.chars()).take_while(|(a, b)| a == b).map(|(c, _)| c.len_utf8()).sum::<usize>();
        Ok(all[same..].to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written<D: Fn(&[u32]) -> Result<String, String>>(prompt: &[u32], tokens: &[u32], decode: D) -> Vec<String> {
        let mut stream = TextStream::new(prompt, decode);
        let mut texts: Vec<String> = tokens.iter().map(|token| stream.push(*token).unwrap()).collect();
        texts.push(stream.finish().unwrap());
        texts
    }

    fn bytes(tokens: &[u32]) -> Result<String, String> {
        Ok(String::from_utf8_lossy(&tokens.iter().map(|t| *t as u8).collect::<Vec<_>>()).into_owned())
    }

    /// As SentencePiece does: a word begins with its space, which a text does not begin with.
    fn words(tokens: &[u32]) -> Result<String, String> {
        let text: String = tokens.iter().map(|t| [" Once", " upon", " a", "ti", "me"][*t as usize]).collect();
        Ok(text.strip_prefix(' ').unwrap_or(&text).to_owned())
    }

    #[test]
    fn characters_come_whole_and_the_rest_at_the_end() {
        let tokens: Vec<u32> = "aé🥊".bytes().map(u32::from).collect();
        assert_eq!(written(&[], &tokens, bytes), ["a", "", "é", "", "", "", "🥊", ""]);
        assert_eq!(written(&[], &tokens[..5], bytes), ["a", "", "é", "", "", "\u{FFFD}"]);
        let broken: String = written(&[], &[0xFF; 40], bytes).concat();
        assert!(broken.chars().all(|c| c == '\u{FFFD}') && broken.chars().count() >= 32, "{broken}");
        assert_eq!(written(&[], &[0xC3, b'a' as u32], bytes).concat(), "\u{FFFD}a");
    }

    #[test]
    fn a_space_between_words_is_kept_and_none_is_put_first() {
        assert_eq!(written(&[], &[0, 1, 2, 3, 4], words), ["Once", " upon", " a", "ti", "me", ""]);
        assert_eq!(written(&[0], &[1, 2, 3, 4], words), [" upon", " a", "ti", "me", ""]);
        let prompt = [0, 1].repeat(40);
        assert_eq!(written(&prompt, &[2, 3, 4], words).concat(), " atime");
    }
}
