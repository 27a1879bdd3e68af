//! Socket options: what every link gets, and the Linux-only ones, with what other systems do instead.

use std::io;

use tokio::net::{TcpSocket, TcpStream};

pub(crate) use system::{is_writable_now, keep_on_interface, use_congestion_control, use_interface};

/// Options of every link, dialled or accepted. The buffers' sizes are the kernel's business: it tunes them.
pub(crate) fn set_link_options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    system::set_link_options(stream)
}

/// An error of one option, with the option in front.
#[cfg(target_os = "linux")]
fn named(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

#[cfg(target_os = "linux")]
mod system {
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use socket2::SockRef;

    use super::{TcpSocket, TcpStream, io, named};

    /// Unsent bytes in the kernel up to which a socket takes more. Two batches of the bond's writer: one is under
    /// way while the next is decided upon. More would only be a queue that the bond cannot take back.
    const NOTSENT_LOWAT_BYTES: u32 = 128 << 10;
    /// Time without any acknowledgement after which the kernel gives the connection up. The bond has long moved its
    /// traffic by then; this frees the socket, and lets the dialer make a new one.
    const USER_TIMEOUT: Duration = Duration::from_secs(30);
    /// Where the kernel lists its congestion controls.
    const CONGESTION_CONTROLS: &str = "/proc/sys/net/ipv4/tcp_available_congestion_control";

    pub(crate) fn set_link_options(stream: &TcpStream) -> io::Result<()> {
        let socket = SockRef::from(stream);
        socket.set_tcp_notsent_lowat(NOTSENT_LOWAT_BYTES)?;
        socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
    }

    pub(crate) fn use_interface(socket: &TcpSocket, iface: &str) -> io::Result<()> {
        socket.bind_device(Some(iface.as_bytes())).map_err(|e| match e.raw_os_error() {
            Some(code) if code == rustix::io::Errno::NODEV.raw_os_error() => io::Error::new(
                io::ErrorKind::NotFound,
                format!("there is no network interface `{iface}`; `ip link` lists them"),
            ),
            _ => named(&format!("cannot use network interface `{iface}`"), &e),
        })
    }

    pub(crate) fn keep_on_interface(stream: &TcpStream, iface: &str) -> io::Result<()> {
        let bound = SockRef::from(stream).bind_device(Some(iface.as_bytes()));
        bound.map_err(|e| named(&format!("cannot keep to network interface `{iface}`"), &e))
    }

    pub(crate) fn use_congestion_control(socket: &TcpSocket, cc: &str) -> io::Result<()> {
        SockRef::from(socket).set_tcp_congestion(cc.as_bytes()).map_err(|e| {
            let available = std::fs::read_to_string(CONGESTION_CONTROLS).unwrap_or_default();
            let available = available.split_whitespace().collect::<Vec<_>>().join(", ");
            let what = format!("cannot use congestion control `{cc}` (available: {available}; others need `modprobe tcp_{cc}`)");
            named(&what, &e)
        })
    }

    /// Asks the kernel now, low-water mark included.
    pub(crate) fn is_writable_now(stream: &TcpStream) -> io::Result<bool> {
        let mut descriptors = [PollFd::new(stream, PollFlags::OUT)];
        poll(&mut descriptors, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
        // Errors and hang-ups count as writable: the write will tell.
        Ok(!descriptors[0].revents().is_empty())
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use super::{TcpSocket, TcpStream, io};

    pub(crate) fn set_link_options(_stream: &TcpStream) -> io::Result<()> {
        Ok(())
    }

    pub(crate) fn use_interface(_socket: &TcpSocket, iface: &str) -> io::Result<()> {
        Err(unsupported(&format!("iface={iface}")))
    }

    pub(crate) fn keep_on_interface(_stream: &TcpStream, _iface: &str) -> io::Result<()> {
        Ok(())
    }

    pub(crate) fn use_congestion_control(_socket: &TcpSocket, cc: &str) -> io::Result<()> {
        Err(unsupported(&format!("cc={cc}")))
    }

    /// Without a low-water mark what the runtime remembers is all there is.
    pub(crate) fn is_writable_now(_stream: &TcpStream) -> io::Result<bool> {
        Ok(true)
    }

    fn unsupported(option: &str) -> io::Error {
        io::Error::new(io::ErrorKind::Unsupported, format!("`{option}` works on Linux only; leave it out"))
    }
}
