//! What an icon of the system's own looks like, on Windows and macOS.

use super::{IconView, MenuChoice, drawing, menu, menu_line, title};
use tray_icon::{
    Icon, TrayIcon,
    menu::{Menu, MenuItem, PredefinedMenuItem},
};

/// Side of the picture, in pixels: the system makes it smaller where it wants to.
const SIZE: usize = 32;
/// Most characters of a tip, by Windows' structure.
const TIP_MAX: usize = 120;

/// Puts a view on the icon.
pub(super) fn wear(icon: &TrayIcon, view: &IconView) -> Result<(), Box<dyn std::error::Error>> {
    let mut picture = drawing::argb(view.state, SIZE);
    picture.chunks_exact_mut(4).for_each(|pixel| pixel.rotate_left(1));
    icon.set_icon(Some(Icon::from_rgba(picture, SIZE as u32, SIZE as u32)?))?;
    icon.set_tooltip(Some(
        format!("{}: {}", title(view.state), view.sentence).chars().take(TIP_MAX).collect::<String>(),
    ))?;
    let menu = Menu::new();
    menu.append(&MenuItem::new(menu_line(&view.sentence, '&'), false, None))?;
    menu.append(&PredefinedMenuItem::separator())?;
    for entry in menu::entries(view.paused) {
        if entry.choice == MenuChoice::Quit {
            menu.append(&PredefinedMenuItem::separator())?;
        }
        menu.append(&MenuItem::with_id(entry.id, entry.label, true, None))?;
    }
    icon.set_menu(Some(Box::new(menu)));
    Ok(())
}
