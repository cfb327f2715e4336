//! The logs of runs that have ended: how much they take up, packing them, removing them, and reading
//! what was packed at any offset.
//!
//! A packed log is zstd in the seekable format: frames of [`FRAME`] plain bytes each, and a table of
//! them in a frame that decoders skip. So `zstd -dc` reads it, and so does a range of a reader, at the
//! cost of the frames that it touches. Of a log that is longer than [`HEAD`] and [`TAIL`] together its
//! middle is left out, and a line says how much.
//!
//! The folders belong to programs that may be hostile: every name is resolved below the runs directory
//! without following a link, and what a table says is believed only as far as the file bears it out.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, ResolveFlags, fsync, openat, openat2, renameat, unlinkat};
use rustix::io::Errno;

use crate::ids::RunId;

/// Plain bytes of a frame: what one read costs at most.
pub const FRAME: usize = 64 << 10;
/// Bytes that are kept from the beginning of a long log.
pub const HEAD: u64 = 8 << 20;
/// Bytes that are kept from its end.
pub const TAIL: u64 = 8 << 20;
/// How hard is packed: the default of zstd, about 300 MB a second.
const LEVEL: i32 = 3;
/// What is put after the name of a packed log.
pub const PACKED: &str = ".zst";
/// The logs of an attempt.
const LOGS: [&str; 4] = ["stdout.log", "stderr.log", "gate.log", "verify.log"];
/// Attempts of a run that are looked at.
const ATTEMPTS_MAX: usize = 10_000;

const SKIPPABLE: u32 = 0x184D_2A5E;
const SEEKABLE: u32 = 0x8F92_EAB1;
const FOOTER: usize = 9;
const ENTRY: usize = 8;

/// Opens a file below the directory `root` without following a link anywhere on the way.
///
/// # Errors
/// Those of the file system; a link is one of them.
pub fn open_below(root: impl AsFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    match openat2(&root, path, flags, Mode::empty(), resolve) {
        // Before Linux 5.6, and under filters that do not know the call.
        Err(Errno::NOSYS | Errno::PERM) => openat(&root, path, flags, Mode::empty()),
        opened => opened,
    }
}

/// The folders of the attempts of a run.
fn attempts(runs: &Path, run: RunId) -> io::Result<Vec<OwnedFd>> {
    let below = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = match openat(CWD, runs, below, Mode::empty()) {
        Ok(root) => root,
        Err(Errno::NOENT) => return Ok(Vec::new()),
        Err(e) => return Err(e.into()),
    };
    let folder = Path::new(&run.to_string()).join("attempts");
    let folder = match open_below(&root, &folder, OFlags::RDONLY | OFlags::DIRECTORY) {
        Ok(folder) => folder,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(Vec::new()),
        Err(e) => return Err(e.into()),
    };
    let mut found = Vec::new();
    for entry in Dir::read_from(&folder)?.take(ATTEMPTS_MAX) {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.bytes().all(|b| b.is_ascii_digit())
            && let Ok(attempt) = open_below(&folder, Path::new(&name), OFlags::RDONLY | OFlags::DIRECTORY)
        {
            found.push(attempt);
        }
    }
    Ok(found)
}

/// A regular file of an attempt; `None` where there is none.
fn regular(attempt: &OwnedFd, name: &str) -> Option<File> {
    let file = File::from(open_below(attempt, Path::new(name), OFlags::RDONLY).ok()?);
    file.metadata().is_ok_and(|m| m.is_file()).then_some(file)
}

fn names() -> impl Iterator<Item = (&'static str, String)> {
    LOGS.into_iter().map(|name| (name, format!("{name}{PACKED}")))
}

/// Bytes that the logs of a run take up. Blocks.
///
/// # Errors
/// Those of the file system.
pub fn log_bytes(runs: &Path, run: RunId) -> io::Result<u64> {
    let mut bytes = 0;
    for attempt in attempts(runs, run)? {
        for (plain, packed) in names() {
            for name in [plain, &packed] {
                bytes += regular(&attempt, name).and_then(|f| f.metadata().ok()).map_or(0, |m| m.len());
            }
        }
    }
    Ok(bytes)
}

/// Removes the logs of a run. Blocks.
///
/// # Errors
/// Those of the file system.
pub fn remove_logs(runs: &Path, run: RunId) -> io::Result<()> {
    for attempt in attempts(runs, run)? {
        for (plain, packed) in names() {
            for name in [plain, &packed] {
                match unlinkat(&attempt, name, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT | Errno::ISDIR) => {}
                    Err(e) => return Err(e.into()),
                }
            }
        }
    }
    Ok(())
}

/// Packs the logs of a run that has ended; the bytes they take up then. A log is whole under one of
/// its two names at every moment. Blocks.
///
/// # Errors
/// Those of the file system; what is packed by then stays packed.
pub fn pack_logs(runs: &Path, run: RunId) -> io::Result<u64> {
    for attempt in attempts(runs, run)? {
        for (plain, packed) in names() {
            let Some(log) = regular(&attempt, plain) else { continue };
            let new = format!("{packed}.new");
            match unlinkat(&attempt, new.as_str(), AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(e) => return Err(e.into()),
            }
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut file = File::from(openat(&attempt, new.as_str(), flags, Mode::RUSR | Mode::WUSR)?);
            if let Err(e) = pack(&log, &mut file).and_then(|()| file.sync_data()) {
                // Half a file helps nobody, least of all on a full disk.
                let _ = unlinkat(&attempt, new.as_str(), AtFlags::empty());
                return Err(e);
            }
            renameat(&attempt, new.as_str(), &attempt, packed.as_str())?;
            fsync(&attempt)?;
            unlinkat(&attempt, plain, AtFlags::empty())?;
        }
    }
    log_bytes(runs, run)
}

/// Writes `log` packed to `out`.
fn pack(log: &File, out: &mut impl io::Write) -> io::Result<()> {
    let len = log.metadata()?.len();
    let mut frames = Frames { out, table: Vec::new(), plain: Vec::with_capacity(FRAME) };
    if len <= HEAD + TAIL {
        frames.copy(log, 0, len)?;
    } else {
        frames.copy(log, 0, HEAD)?;
        let left_out = len - HEAD - TAIL;
        frames.push(format!("\n[matins: {left_out} bytes left out]\n").as_bytes())?;
        frames.copy(log, len - TAIL, TAIL)?;
    }
    frames.finish()
}

struct Frames<'a, W> {
    out: &'a mut W,
    table: Vec<(u32, u32)>,
    plain: Vec<u8>,
}

impl<W: io::Write> Frames<'_, W> {
    fn copy(&mut self, mut log: &File, from: u64, len: u64) -> io::Result<()> {
        log.seek(SeekFrom::Start(from))?;
        let (mut reader, mut chunk) = (log.take(len), vec![0; FRAME]);
        loop {
            match reader.read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(n) => self.push(chunk.get(..n).unwrap_or_default())?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    fn push(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(FRAME - self.plain.len()));
            self.plain.extend_from_slice(now);
            bytes = later;
            if self.plain.len() == FRAME {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.plain.is_empty() {
            return Ok(());
        }
        let frame = zstd::bulk::compress(&self.plain, LEVEL)?;
        self.table.push((size(frame.len())?, size(self.plain.len())?));
        self.plain.clear();
        self.out.write_all(&frame)
    }

    fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        let mut end = Vec::with_capacity(self.table.len() * ENTRY + FOOTER + 8);
        end.extend_from_slice(&SKIPPABLE.to_le_bytes());
        end.extend_from_slice(&size(self.table.len() * ENTRY + FOOTER)?.to_le_bytes());
        for (packed, plain) in &self.table {
            end.extend_from_slice(&packed.to_le_bytes());
            end.extend_from_slice(&plain.to_le_bytes());
        }
        end.extend_from_slice(&size(self.table.len())?.to_le_bytes());
        end.push(0);
        end.extend_from_slice(&SEEKABLE.to_le_bytes());
        self.out.write_all(&end)
    }
}

fn size(n: usize) -> io::Result<u32> {
    u32::try_from(n).map_err(io::Error::other)
}

/// A packed log that is open for reading.
#[derive(Debug)]
pub struct PackedLog {
    file: File,
    /// Where each frame begins: plain, packed; and the ends of the last.
    starts: Vec<(u64, u64)>,
}

impl PackedLog {
    /// Reads the table of a packed log. Blocks.
    ///
    /// # Errors
    /// Those of the file system, and a file that is no packed log.
    pub fn open(file: File) -> io::Result<Self> {
        let torn = || io::Error::new(io::ErrorKind::InvalidData, "the packed log is damaged");
        let len = file.metadata()?.len();
        let mut footer = [0; FOOTER];
        let at = len.checked_sub(FOOTER as u64).ok_or_else(torn)?;
        file.read_exact_at(&mut footer, at)?;
        let word = |bytes: &[u8]| bytes.try_into().map(u32::from_le_bytes).unwrap_or_default();
        if word(&footer[5..]) != SEEKABLE || footer[4] != 0 {
            return Err(torn());
        }
        let table = u64::from(word(&footer[..4])) * ENTRY as u64;
        let at = at.checked_sub(table).ok_or_else(torn)?;
        let mut entries = vec![0; usize::try_from(table).map_err(io::Error::other)?];
        file.read_exact_at(&mut entries, at)?;
        let (mut plain, mut packed) = (0, 0);
        let mut starts = vec![(0, 0)];
        for entry in entries.chunks_exact(ENTRY) {
            let (frame, holds) = (word(&entry[..4]), word(&entry[4..]));
            if holds as usize > FRAME || holds == 0 || frame as usize > FRAME * 2 {
                return Err(torn());
            }
            (plain, packed) = (plain + u64::from(holds), packed + u64::from(frame));
            starts.push((plain, packed));
        }
        if packed > at { Err(torn()) } else { Ok(Self { file, starts }) }
    }

    /// Plain bytes of the log.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.starts.last().map_or(0, |(plain, _)| *plain)
    }

    /// Whether the program wrote nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What stands at `offset` of the plain log, at most `max` bytes and no more than one frame holds;
    /// empty at the end. Blocks.
    ///
    /// # Errors
    /// Those of the file system, and a damaged frame.
    pub fn read_at(&self, offset: u64, max: u64) -> io::Result<Vec<u8>> {
        let next = self.starts.partition_point(|(plain, _)| *plain <= offset);
        let (Some(begin), Some(end)) =
            (next.checked_sub(1).and_then(|i| self.starts.get(i)), self.starts.get(next))
        else {
            return Ok(Vec::new());
        };
        let mut frame = vec![0; usize::try_from(end.1 - begin.1).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut frame, begin.1)?;
        let plain = zstd::bulk::decompress(&frame, FRAME)?;
        let from = usize::try_from(offset - begin.0).map_err(io::Error::other)?;
        let rest = plain.get(from..).unwrap_or_default();
        Ok(rest[..usize::try_from(max).unwrap_or(usize::MAX).min(rest.len())].to_vec())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use super::*;
    use crate::ids::SeededEntropy;

    struct Place {
        dir: tempfile::TempDir,
        run: RunId,
    }

    impl Place {
        fn new() -> Self {
            let place =
                Self { dir: tempfile::tempdir().unwrap(), run: RunId::generate(0, &SeededEntropy::new(1)) };
            std::fs::create_dir_all(place.attempt(1)).unwrap();
            place
        }

        fn attempt(&self, n: u32) -> PathBuf {
            self.dir.path().join(self.run.to_string()).join("attempts").join(n.to_string())
        }

        fn packed(&self) -> PackedLog {
            PackedLog::open(File::open(self.attempt(1).join("stdout.log.zst")).unwrap()).unwrap()
        }
    }

    fn whole(log: &PackedLog) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let chunk = log.read_at(all.len() as u64, 50_000).unwrap();
            if chunk.is_empty() {
                return all;
            }
            all.extend(chunk);
        }
    }

    #[test]
    fn a_packed_log_is_the_log_at_every_offset() {
        let place = Place::new();
        let text: Vec<u8> = (0..40_000).flat_map(|n| format!("line {n}\n").into_bytes()).collect();
        std::fs::write(place.attempt(1).join("stdout.log"), &text).unwrap();
        std::fs::write(place.attempt(1).join("stderr.log"), "").unwrap();
        let before = log_bytes(place.dir.path(), place.run).unwrap();
        assert_eq!(before, text.len() as u64);
        let after = pack_logs(place.dir.path(), place.run).unwrap();
        assert!(after < before / 3, "{after} of {before}");
        assert!(!place.attempt(1).join("stdout.log").exists());
        let log = place.packed();
        assert_eq!((log.len(), whole(&log)), (text.len() as u64, text.clone()));
        for at in [0, 1, FRAME - 1, FRAME, FRAME + 1, text.len() - 1] {
            assert_eq!(log.read_at(at as u64, 1).unwrap(), [text[at]], "{at}");
        }
        assert!(log.read_at(text.len() as u64, 10).unwrap().is_empty());
        assert!(log.read_at(u64::MAX, 10).unwrap().is_empty());
        // The plain format, too, reads it.
        let bytes = std::fs::read(place.attempt(1).join("stdout.log.zst")).unwrap();
        assert_eq!(zstd::stream::decode_all(&bytes[..]).unwrap(), text);
        assert_eq!(pack_logs(place.dir.path(), place.run).unwrap(), after, "a second time does nothing");
        remove_logs(place.dir.path(), place.run).unwrap();
        assert_eq!(log_bytes(place.dir.path(), place.run).unwrap(), 0);
    }

    #[test]
    fn of_a_long_log_head_and_tail_are_kept() {
        let place = Place::new();
        let (head, middle, tail) = (vec![b'h'; 8 << 20], vec![b'm'; 1234], vec![b't'; 8 << 20]);
        std::fs::write(place.attempt(1).join("stdout.log"), [&head[..], &middle, &tail].concat()).unwrap();
        pack_logs(place.dir.path(), place.run).unwrap();
        let all = whole(&place.packed());
        let said = b"\n[matins: 1234 bytes left out]\n";
        assert!(all.starts_with(&head) && all.ends_with(&tail));
        assert_eq!(all[head.len()..head.len() + said.len()], said[..]);
        assert_eq!(all.len(), head.len() + said.len() + tail.len());
    }

    #[test]
    fn nothing_is_touched_through_a_link() {
        let place = Place::new();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("stdout.log"), "theirs").unwrap();
        symlink(outside.path(), place.attempt(2)).unwrap();
        symlink(outside.path().join("stdout.log"), place.attempt(1).join("stderr.log")).unwrap();
        assert_eq!(pack_logs(place.dir.path(), place.run).unwrap(), 0);
        remove_logs(place.dir.path(), place.run).unwrap();
        assert_eq!(std::fs::read(outside.path().join("stdout.log")).unwrap(), b"theirs");
        assert!(!place.attempt(1).join("stderr.log").exists(), "the link itself goes");
    }

    #[test]
    fn a_damaged_file_is_an_error() {
        let place = Place::new();
        std::fs::write(place.attempt(1).join("stdout.log"), vec![b'x'; 200_000]).unwrap();
        pack_logs(place.dir.path(), place.run).unwrap();
        let path = place.attempt(1).join("stdout.log.zst");
        let bytes = std::fs::read(&path).unwrap();
        for cut in [0, 5, bytes.len() / 2, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            assert!(PackedLog::open(File::open(&path).unwrap()).is_err(), "{cut}");
        }
        let mut torn = bytes.clone();
        torn[10] ^= 0xff;
        torn[0] ^= 0xff;
        std::fs::write(&path, &torn).unwrap();
        assert!(place.packed().read_at(0, 1).is_err());
        let mut huge = bytes;
        let entry = huge.len() - FOOTER - ENTRY;
        huge[entry + 4..entry + 8].copy_from_slice(&u32::MAX.to_le_bytes());
        std::fs::write(&path, &huge).unwrap();
        assert!(PackedLog::open(File::open(&path).unwrap()).is_err());
    }
}
