//! Windows on a test's X server, and what a window manager says of them.

use super::counterparts::{SIZE, Screen};
use x11rb::{
    connection::Connection,
    protocol::xproto::{AtomEnum, ConnectionExt as _, CreateWindowAux, PropMode, Window, WindowClass},
    rust_connection::RustConnection,
    wrapper::ConnectionExt as _,
};

/// A client of the X server.
pub struct Client {
    client: RustConnection,
    root: Window,
}

impl Client {
    /// Connects.
    pub fn of(screen: &Screen) -> Client {
        let (client, screen) = RustConnection::connect(Some(&screen.name)).unwrap();
        let root = client.setup().roots[screen].root;
        Client { client, root }
    }

    /// Shows a window in the corner, a small one or one as large as the screen.
    pub fn window(&self, large: bool) -> Shown<'_> {
        self.show(if large { SIZE } else { (200, 100) }, &CreateWindowAux::new())
    }

    /// Shows a window as large as the screen that is none of a window manager's business.
    pub fn window_beside_manager(&self) -> Shown<'_> {
        self.show(SIZE, &CreateWindowAux::new().override_redirect(1))
    }

    fn show(&self, (width, height): (u16, u16), settings: &CreateWindowAux) -> Shown<'_> {
        let id = self.client.generate_id().unwrap();
        let class = WindowClass::INPUT_OUTPUT;
        self.client.create_window(0, id, self.root, 0, 0, width, height, 0, class, 0, settings).unwrap();
        self.client.map_window(id).unwrap().check().unwrap();
        Shown { of: self, id }
    }

    /// Does what a window manager does: says which windows there are.
    pub fn manage(&self, windows: &[&Shown]) -> Manager<'_> {
        let manager = Manager { of: self };
        let ids: Vec<u32> = windows.iter().map(|window| window.id).collect();
        manager.set(self.root, "_NET_CLIENT_LIST", AtomEnum::WINDOW, &ids);
        manager.set(self.root, "_NET_SUPPORTING_WM_CHECK", AtomEnum::WINDOW, &ids[..1]);
        manager
    }
}

/// A window; dropping it closes it.
pub struct Shown<'a> {
    of: &'a Client,
    id: Window,
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        let _ = self.of.client.destroy_window(self.id);
        let _ = self.of.client.flush();
    }
}

/// Sets the properties that window managers set.
pub struct Manager<'a> {
    of: &'a Client,
}

impl Manager<'_> {
    fn atom(&self, name: &str) -> u32 {
        self.of.client.intern_atom(false, name.as_bytes()).unwrap().reply().unwrap().atom
    }

    fn set(&self, window: Window, name: &str, kind: AtomEnum, values: &[u32]) {
        self.of
            .client
            .change_property32(PropMode::REPLACE, window, self.atom(name), kind, values)
            .unwrap()
            .check()
            .unwrap();
    }

    pub fn activate(&self, window: &Shown) {
        self.set(self.of.root, "_NET_ACTIVE_WINDOW", AtomEnum::WINDOW, &[window.id]);
    }

    pub fn is_desktop(&self, window: &Shown) {
        self.set(window.id, "_NET_WM_WINDOW_TYPE", AtomEnum::ATOM, &[self.atom("_NET_WM_WINDOW_TYPE_DESKTOP")]);
    }

    pub fn maximize(&self, window: &Shown, is: bool) {
        let both = ["_NET_WM_STATE_MAXIMIZED_VERT", "_NET_WM_STATE_MAXIMIZED_HORZ"].map(|name| self.atom(name));
        self.set(window.id, "_NET_WM_STATE", AtomEnum::ATOM, if is { &both } else { &[] });
    }

    pub fn full_screen(&self, window: &Shown, is: bool) {
        let states = if is { vec![self.atom("_NET_WM_STATE_FULLSCREEN")] } else { vec![] };
        self.set(window.id, "_NET_WM_STATE", AtomEnum::ATOM, &states);
    }
}
