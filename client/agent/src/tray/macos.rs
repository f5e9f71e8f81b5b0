//! The icon on macOS: in the menu bar. AppKit belongs to the process's first thread, so this is a process of its own,
//! which [`super::process`] starts and feeds.

use super::{IconView, menu, native::wear};
use objc2::{MainThreadMarker, rc::autoreleasepool};
use objc2_app_kit::{NSApplication, NSApplicationActivationPolicy, NSEventMask};
use objc2_foundation::{NSDate, NSDefaultRunLoopMode};
use std::{
    error::Error,
    io::{self, BufRead, Write},
    sync::mpsc::{self, TryRecvError},
    thread,
};
use tray_icon::{TrayIconBuilder, menu::MenuEvent};

/// How long the loop waits for something to happen before it looks at what it was told.
const LOOK_EVERY_S: f64 = 0.25;

/// Shows an icon with the views that come in over stdin, until that ends.
pub fn serve() -> Result<(), Box<dyn Error>> {
    let first = MainThreadMarker::new().ok_or("an icon needs the process's first thread")?;
    let app = NSApplication::sharedApplication(first);
    // No icon in the dock, no menu of its own.
    app.setActivationPolicy(NSApplicationActivationPolicy::Accessory);
    app.finishLaunching();
    let icon = TrayIconBuilder::new().build()?;
    let (told, views) = mpsc::channel::<IconView>();
    thread::spawn(move || {
        let views =
            io::stdin().lock().lines().map_while(Result::ok).filter_map(|line| serde_json::from_str(&line).ok());
        views.map_while(|view| told.send(view).ok()).for_each(drop);
    });
    loop {
        autoreleasepool(|_| {
            let until = NSDate::dateWithTimeIntervalSinceNow(LOOK_EVERY_S);
            // SAFETY: a name that the system defines once and for all.
            #[expect(unsafe_code, reason = "the name of the loop's mode is a variable of the system's")]
            let mode = unsafe { NSDefaultRunLoopMode };
            if let Some(event) =
                app.nextEventMatchingMask_untilDate_inMode_dequeue(NSEventMask::Any, Some(&until), mode, true)
            {
                app.sendEvent(&event);
            }
        });
        for event in MenuEvent::receiver().try_iter().filter(|event| menu::choice(event.id.as_ref()).is_some()) {
            writeln!(io::stdout(), "{}", event.id.as_ref())?;
        }
        loop {
            match views.try_recv() {
                Ok(view) => wear(&icon, &view)?,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Ok(()),
            }
        }
    }
}
