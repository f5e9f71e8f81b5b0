//! When a device is on: by the hours of its day, by churn, or away because it vanished.

use super::{Hours, Traits};
use crate::draws::{Draws, Purpose};

/// A device's presence; all times in virtual seconds.
#[derive(Clone, Debug)]
pub struct Presence {
    hours: Option<Hours>,
    /// Virtual seconds at local midnight of day 0.
    midnight_s: f64,
    /// This day's window.
    day: i64,
    window: (f64, f64),
    churn_on: bool,
    churn_next: f64,
    away_until: f64,
    was_on: bool,
}

impl Presence {
    /// At the start. `start_hour` is the hour, UTC, of virtual time 0.
    pub fn new(traits: &Traits, start_hour: f64, draws: &mut Draws) -> Self {
        let (churn_on, churn_next) = match traits.group.churn {
            None => (true, f64::INFINITY),
            Some(churn) => {
                let on = draws.unit(Purpose::Presence) < churn.on_s / (churn.on_s + churn.off_s);
                (on, draws.exponential(Purpose::Presence, if on { churn.on_s } else { churn.off_s }))
            }
        };
        let mut presence = Presence {
            hours: traits.group.online,
            midnight_s: -3600.0 * (start_hour + traits.time_zone_h),
            day: -2,
            window: (f64::NEG_INFINITY, f64::NEG_INFINITY),
            churn_on,
            churn_next,
            away_until: f64::NEG_INFINITY,
            was_on: false,
        };
        presence.advance(0.0, traits, draws);
        presence
    }

    /// Whether it is on.
    pub fn is_on(&self) -> bool {
        self.was_on
    }

    /// Gone for so long, whatever the hour.
    pub fn vanish(&mut self, now_s: f64, away_s: f64) {
        self.away_until = now_s + away_s;
        self.was_on = false;
    }

    /// Moves on to `now_s`; tells whether it is on, and when to ask again.
    pub fn advance(&mut self, now_s: f64, traits: &Traits, draws: &mut Draws) -> (bool, Option<f64>) {
        while let Some(churn) = traits.group.churn
            && self.churn_next <= now_s
        {
            self.churn_on = !self.churn_on;
            self.churn_next +=
                draws.exponential(Purpose::Presence, if self.churn_on { churn.on_s } else { churn.off_s });
        }
        let (in_hours, hours_next) = match self.hours {
            None => (true, f64::INFINITY),
            Some(hours) => {
                while self.window.1 <= now_s {
                    self.day += 1;
                    let jitter_h = draws.unit(Purpose::Presence) - 0.5;
                    let length_h = hours.hours[0] + (hours.hours[1] - hours.hours[0]) * draws.unit(Purpose::Presence);
                    let from = self.midnight_s + 3600.0 * (24.0 * self.day as f64 + hours.from + jitter_h);
                    self.window = (from, from + 3600.0 * length_h);
                }
                if now_s < self.window.0 { (false, self.window.0) } else { (true, self.window.1) }
            }
        };
        let is_away = now_s < self.away_until;
        self.was_on = in_hours && self.churn_on && !is_away;
        let away_next = if is_away { self.away_until } else { f64::INFINITY };
        let next = self.churn_next.min(hours_next).min(away_next);
        (self.was_on, next.is_finite().then_some(next))
    }
}
