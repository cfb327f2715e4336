//! Whose a connection over loopback is, as `/proc` tells it: the user of its socket, and who holds that open.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddrV4;

/// A socket of TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Socket {
    /// The user who made it.
    pub uid: u32,
    /// What it is called among the descriptors of those who hold it.
    pub inode: u64,
}

/// The socket on this machine that is connected from `local` to `remote`; `None`: there is none now.
///
/// # Errors
/// The table of connections cannot be read.
pub fn tcp_socket(local: SocketAddrV4, remote: SocketAddrV4) -> io::Result<Option<Socket>> {
    find(BufReader::new(File::open("/proc/net/tcp")?), local, remote)
}

fn find(table: impl BufRead, local: SocketAddrV4, remote: SocketAddrV4) -> io::Result<Option<Socket>> {
    // An address stands there as the number that its bytes are on this machine.
    let shown = |at: SocketAddrV4| format!("{:08X}:{:04X}", u32::from_ne_bytes(at.ip().octets()), at.port());
    let wanted = [shown(local), shown(remote)];
    for line in table.lines() {
        let line = line?;
        let mut fields = line.split_ascii_whitespace().skip(1);
        if wanted.iter().all(|wanted| fields.next() == Some(wanted)) {
            let (uid, inode) = (fields.nth(4), fields.nth(1));
            let socket = uid
                .zip(inode)
                .and_then(|(uid, inode)| Some(Socket { uid: uid.parse().ok()?, inode: inode.parse().ok()? }));
            return Ok(socket);
        }
    }
    Ok(None)
}

/// Whether a process holds a socket open. `None` where that may not be read: the process is gone, another user's, or
/// non-dumpable.
#[must_use]
pub fn holds_socket(pid: i32, inode: u64) -> Option<bool> {
    let wanted = format!("socket:[{inode}]");
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let is = |entry: std::fs::DirEntry| {
        std::fs::read_link(entry.path()).is_ok_and(|link| link.as_os_str() == OsStr::new(&wanted))
    };
    Some(entries.flatten().any(is))
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener, TcpStream};

    use super::super::own_pid;
    use super::*;

    #[test]
    fn a_connection_is_its_maker_s() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (SocketAddr::V4(local), SocketAddr::V4(remote)) =
            (ours.local_addr().unwrap(), ours.peer_addr().unwrap())
        else {
            panic!("no IPv4")
        };
        let socket = tcp_socket(local, remote).unwrap().unwrap();
        assert_eq!(socket.uid, rustix::process::geteuid().as_raw());
        assert_eq!(holds_socket(own_pid(), socket.inode), Some(true));
        drop(ours);
        assert_eq!(holds_socket(own_pid(), socket.inode), Some(false));
        assert_eq!(tcp_socket(local, SocketAddrV4::new(*remote.ip(), 1)).unwrap(), None);
        assert_eq!(holds_socket(i32::MAX, socket.inode), None);
    }
}
