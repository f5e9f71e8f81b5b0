//! The icon on Linux: a StatusNotifierItem on the session bus, as KDE, GNOME with its extension, and most panels show
//! it.

use super::{IconView, MenuChoice, State, drawing, menu, menu_line, title};
use ksni::{Category, Icon, MenuItem, OfflineReason, Status, ToolTip, Tray, TrayMethods, menu::StandardItem};
use std::{sync::OnceLock, time::Duration};
use tokio::sync::{mpsc, watch};

/// Without a bus or a panel they are looked for again: soon at a login, seldom later.
const LOOK_AGAIN_FIRST: Duration = Duration::from_secs(1);
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(300);

/// Keeps an icon shown until nobody sends views any more.
pub(super) async fn show(mut views: watch::Receiver<IconView>, choices: mpsc::Sender<MenuChoice>) {
    let mut look_again = LOOK_AGAIN_FIRST;
    loop {
        let mut shown = views.borrow_and_update().clone();
        let item = Item { view: shown.clone(), choices: choices.clone() };
        match item.spawn().await {
            Ok(handle) => {
                while views.changed().await.is_ok() {
                    let view = views.borrow_and_update().clone();
                    if view == shown {
                        continue;
                    }
                    shown = view.clone();
                    if handle.update(|item: &mut Item| item.view = view).await.is_none() {
                        break;
                    }
                }
                if views.has_changed().is_err() {
                    handle.shutdown().await;
                    return;
                }
                look_again = LOOK_AGAIN_FIRST;
            }
            Err(e) => tracing::debug!("no tray icon for now: {e}"),
        }
        let the_agent_ends = async { while views.changed().await.is_ok() {} };
        if tokio::time::timeout(look_again, the_agent_ends).await.is_ok() {
            return;
        }
        look_again = (look_again * 2).min(LOOK_AGAIN_MAX);
    }
}

struct Item {
    view: IconView,
    choices: mpsc::Sender<MenuChoice>,
}

impl Item {
    fn choice(&self, choice: MenuChoice) {
        if self.choices.try_send(choice).is_err() {
            tracing::warn!("the agent is too busy for the tray's menu; choose again");
        }
    }
}

impl Tray for Item {
    fn id(&self) -> String {
        "nightjar".into()
    }

    fn title(&self) -> String {
        title(self.view.state)
    }

    fn category(&self) -> Category {
        Category::ApplicationStatus
    }

    fn status(&self) -> Status {
        if self.view.state == State::Trouble { Status::NeedsAttention } else { Status::Active }
    }

    fn icon_pixmap(&self) -> Vec<Icon> {
        pictures(self.view.state)
    }

    fn attention_icon_pixmap(&self) -> Vec<Icon> {
        pictures(State::Trouble)
    }

    fn tool_tip(&self) -> ToolTip {
        // A tooltip is markup.
        let description = self.view.sentence.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        ToolTip { title: self.title(), description, ..ToolTip::default() }
    }

    fn activate(&mut self, _x: i32, _y: i32) {
        self.choice(MenuChoice::OpenPage);
    }

    fn menu(&self) -> Vec<MenuItem<Self>> {
        let entry = |menu::Entry { label, choice, .. }: menu::Entry| -> MenuItem<Self> {
            let activate = Box::new(move |item: &mut Item| item.choice(choice));
            StandardItem { label: label.into(), activate, ..StandardItem::default() }.into()
        };
        let sentence =
            StandardItem { label: menu_line(&self.view.sentence, '_'), enabled: false, ..StandardItem::default() };
        let mut menu = vec![sentence.into(), MenuItem::Separator];
        menu.extend(menu::entries(self.view.paused).map(entry));
        menu.insert(menu.len() - 1, MenuItem::Separator);
        menu
    }

    fn watcher_offline(&self, reason: OfflineReason) -> bool {
        tracing::debug!("no place for a tray icon for now: {reason:?}");
        true
    }
}

/// A state's pictures in all sizes; drawn once.
fn pictures(state: State) -> Vec<Icon> {
    static DRAWN: [OnceLock<Vec<Icon>>; 4] = [const { OnceLock::new() }; 4];
    let draw = || {
        let icon = |size: usize| Icon { width: size as i32, height: size as i32, data: drawing::argb(state, size) };
        drawing::SIZES.map(icon).into()
    };
    DRAWN[state as usize].get_or_init(draw).clone()
}
