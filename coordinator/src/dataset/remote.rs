//! Where an input is: a file, or an object in a bucket, which is read as if it were one, a part at a time.

use nightjar_shared::disk::Found;
use std::{
    fmt,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
};

/// What is asked for at first, and at most: whoever reads on is given more at once.
const PART_BYTES: [usize; 2] = [64 << 10, 8 << 20];

/// Objects in a bucket, below a prefix.
pub trait Objects: Send + Sync {
    /// All of them; the object that the prefix itself names has no name.
    fn list(&self) -> io::Result<Vec<Found>>;
    /// Up to so many bytes of one; fewer where it ends, or where they are more than one request carries.
    fn read_at(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>>;
}

/// Opens the objects of an address that begins with `s3://`.
pub type OpenObjects = fn(&str) -> io::Result<Arc<dyn Objects>>;

/// An object.
#[derive(Clone)]
pub struct Object {
    /// Where it is.
    pub objects: Arc<dyn Objects>,
    /// Its name there.
    pub name: String,
    /// Its length.
    pub bytes: u64,
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Object").field("name", &self.name).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, self.bytes) == (&other.name, other.bytes)
    }
}

/// Where an input is.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its name, for messages, and to open it where it is a file.
    pub path: PathBuf,
    /// Where it is not.
    pub object: Option<Object>,
}

impl<P: AsRef<Path> + ?Sized> From<&P> for Place {
    fn from(path: &P) -> Self {
        Place { path: path.as_ref().to_owned(), object: None }
    }
}

/// What a file can do.
pub trait Bytes: Read + Seek + Send {}

impl<T: Read + Seek + Send> Bytes for T {}

impl Place {
    /// Opens it, at its start.
    pub fn open(&self) -> io::Result<Box<dyn Bytes>> {
        Ok(match &self.object {
            None => Box::new(File::open(&self.path)?),
            Some(object) => Box::new(OpenObject { object: object.clone(), at: 0, part: vec![], part_at: 0 }),
        })
    }

    /// Its length.
    pub fn length(&self) -> io::Result<u64> {
        match &self.object {
            None => Ok(std::fs::metadata(&self.path)?.len()),
            Some(object) => Ok(object.bytes),
        }
    }
}

/// An object that is read.
struct OpenObject {
    object: Object,
    at: u64,
    /// What was fetched last, and where in the object it is.
    part: Vec<u8>,
    part_at: u64,
}

impl Read for OpenObject {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.object.bytes.saturating_sub(self.at);
        if left == 0 || buffer.is_empty() {
            return Ok(0);
        }
        let end = self.part_at + self.part.len() as u64;
        if !(self.part_at..end).contains(&self.at) {
            let goes_on = self.at == end && !self.part.is_empty();
            let wanted = if goes_on { 4 * self.part.len() } else { PART_BYTES[0] };
            let wanted = wanted.clamp(PART_BYTES[0], PART_BYTES[1]).min(left as usize);
            (self.part_at, self.part) = (self.at, self.object.objects.read_at(&self.object.name, self.at, wanted)?);
            if self.part.is_empty() {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it has become shorter"));
            }
        }
        let from = (self.at - self.part_at) as usize;
        let read = (&self.part[from..]).read(buffer)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for OpenObject {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(to) => Some(to),
            SeekFrom::End(by) => self.object.bytes.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = to.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::BufReader, sync::Mutex, time::SystemTime};

    /// One object, and what was asked for.
    struct Memory(Vec<u8>, Mutex<Vec<(u64, usize)>>);

    impl Objects for Memory {
        fn list(&self) -> io::Result<Vec<Found>> {
            Ok(vec![Found { name: "a".into(), bytes: self.0.len() as u64, changed: SystemTime::UNIX_EPOCH }])
        }

        fn read_at(&self, _: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
            self.1.lock().unwrap().push((offset, length));
            let from = offset as usize;
            Ok(self.0[from..self.0.len().min(from + length)].to_vec())
        }
    }

    #[test]
    fn an_object_is_read_like_a_file_in_few_requests() {
        let bytes: Vec<u8> = (0..9_000_000u32).map(|i| ((i * 7) >> 3) as u8).collect();
        let memory = Arc::new(Memory(bytes.clone(), Mutex::default()));
        let object = Object { objects: memory.clone(), name: "a".into(), bytes: bytes.len() as u64 };
        let place = Place { path: "s3://b/a".into(), object: Some(object) };
        let mut all = vec![];
        BufReader::new(place.open().unwrap()).read_to_end(&mut all).unwrap();
        assert!(all == bytes);
        let asked = std::mem::take(&mut *memory.1.lock().unwrap());
        assert!(asked.len() < 8 && asked.iter().all(|(_, length)| *length <= PART_BYTES[1]), "{asked:?}");
        let mut file = place.open().unwrap();
        let mut part = [0; 100];
        for (to, at) in
            [(SeekFrom::Start(5000), 5000), (SeekFrom::End(-100), 8_999_900), (SeekFrom::Current(-200), 8_999_800)]
        {
            assert_eq!(file.seek(to).unwrap(), at);
            file.read_exact(&mut part).unwrap();
            assert!(part[..] == bytes[at as usize..at as usize + 100]);
        }
        assert!(file.seek(SeekFrom::Current(-9_999_999)).is_err());
    }
}
