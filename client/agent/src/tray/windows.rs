//! The icon on Windows: in the taskbar's notification area. Its window's messages belong to the thread that made it.
#![expect(unsafe_code, reason = "a loop over messages needs three of the system's functions")]

use super::{IconView, MenuChoice, menu, native::wear};
use std::thread;
use tokio::sync::{mpsc, watch};
use tray_icon::{MouseButton, TrayIconBuilder, TrayIconEvent, menu::MenuEvent};
use windows::Win32::{
    Foundation::{LPARAM, WPARAM},
    System::Threading::GetCurrentThreadId,
    UI::WindowsAndMessaging::{
        DispatchMessageW, GetMessageW, MSG, PM_NOREMOVE, PeekMessageW, PostThreadMessageW, TranslateMessage, WM_NULL,
        WM_QUIT,
    },
};

/// Shows an icon until nobody sends views any more.
pub(super) fn spawn(mut views: watch::Receiver<IconView>, choices: mpsc::Sender<MenuChoice>) {
    let (started, thread_id) = tokio::sync::oneshot::channel();
    let shown = views.clone();
    let spawned = thread::Builder::new().name("tray".into()).spawn(move || {
        let mut message = MSG::default();
        // SAFETY: the pointers are to a structure that lives through the calls. The first look makes the thread's
        // queue, so that what is posted from now on is kept.
        let id = unsafe {
            let _ = PeekMessageW(&mut message, None, 0, 0, PM_NOREMOVE);
            GetCurrentThreadId()
        };
        if started.send(id).is_ok()
            && let Err(e) = show(shown, &choices)
        {
            tracing::warn!("no tray icon: {e}; `nightjar open` shows the page");
        }
    });
    if let Err(e) = spawned {
        tracing::warn!("no tray icon: {e}; `nightjar open` shows the page");
        return;
    }
    tokio::spawn(async move {
        let Ok(id) = thread_id.await else { return };
        // SAFETY: no pointer goes in. A thread that is gone is told nothing.
        let post = |message| unsafe { PostThreadMessageW(id, message, WPARAM(0), LPARAM(0)) };
        while views.changed().await.is_ok() {
            let _ = post(WM_NULL);
        }
        let _ = post(WM_QUIT);
    });
}

fn show(
    mut views: watch::Receiver<IconView>,
    choices: &mpsc::Sender<MenuChoice>,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut view = views.borrow_and_update().clone();
    let icon = TrayIconBuilder::new().with_menu_on_left_click(false).build()?;
    wear(&icon, &view)?;
    let mut message = MSG::default();
    // SAFETY: the pointer is to a structure that lives through the call.
    while unsafe { GetMessageW(&mut message, None, 0, 0) }.0 > 0 {
        // SAFETY: the same; these hand it on to the window that it is for.
        unsafe {
            let _ = TranslateMessage(&message);
            DispatchMessageW(&message);
        }
        let chosen = MenuEvent::receiver().try_iter().filter_map(|event| menu::choice(event.id.as_ref()));
        let double = |event| matches!(event, TrayIconEvent::DoubleClick { button: MouseButton::Left, .. });
        let opened =
            TrayIconEvent::receiver().try_iter().filter(|event| double(event.clone())).map(|_| MenuChoice::OpenPage);
        for choice in chosen.chain(opened) {
            if choices.try_send(choice).is_err() {
                tracing::warn!("the agent is too busy for the tray's menu; choose again");
            }
        }
        if views.has_changed().unwrap_or(false) {
            let new = views.borrow_and_update().clone();
            if new != view {
                wear(&icon, &new)?;
                view = new;
            }
        }
    }
    Ok(())
}
