//! The one table of what is handed out: names, ids, words, files, and who gets what. Every package derives from it.

/// What all packages say of Nightjar.
pub const TITLE: &str = "Nightjar";
/// The id of the desktop entry and the software catalogues: their files are called after it.
pub const APP_ID: &str = "org.nightjar.Nightjar";
pub const LICENSE: &str = "MIT OR Apache-2.0";
/// Until somebody answers there, no package claims that somebody does: `--maintainer` names who makes a release.
pub const MAINTAINER: &str = "The Nightjar contributors <packages@nightjar.invalid>";
/// The oldest C library that the programs start with on Linux.
pub const GLIBC_MIN: &str = "2.35";
/// The icon: what the volunteer's page wears.
pub const ICON: &str = "client/agent/src/page/icon.svg";
/// Pixels a side of the icon where a desktop takes no drawing.
pub const ICON_SIZES: [u32; 6] = [32, 48, 64, 128, 256, 512];

/// A program with all that lies beside it on a disk.
pub struct Package {
    /// Of the package, of its program, and of cargo's package.
    pub name: &'static str,
    /// One line, without a full stop.
    pub summary: &'static str,
    /// Paragraphs.
    pub description: &'static str,
    /// Files of the repository on Linux: from, to.
    pub files: &'static [(&'static str, &'static str)],
    /// Whether a desktop shows it in its menu.
    pub has_icon: bool,
    /// What a Linux package runs.
    pub scripts: Scripts,
    /// What it works better with.
    pub recommends: Recommends,
    /// How it is run in a container.
    pub image: Image,
    /// Bytes of its deb at most, and of what that unpacks to.
    pub bytes_max: (u64, u64),
}

/// Paths in the repository.
pub struct Scripts {
    /// After an installation or an upgrade.
    pub installed: &'static str,
    /// Before a removal.
    pub removing: &'static str,
    /// After a removal or a purge on Debian, and what is asked there before.
    pub purged: Option<&'static str>,
    pub questions: Option<&'static str>,
}

/// What an image does beyond holding the program.
pub struct Image {
    /// The command where none is given.
    pub command: &'static str,
    /// Variables.
    pub environment: &'static [&'static str],
    pub ports: &'static [&'static str],
    /// Libraries that are opened once it runs: those that this machine has.
    pub libraries: &'static [&'static str],
}

/// Packages by the names that they have in each format.
pub struct Recommends {
    pub deb: &'static [&'static str],
    pub rpm: &'static [&'static str],
    pub arch: &'static [&'static str],
}

pub const CLIENT: Package = Package {
    name: "nightjar",
    summary: "lend idle hours of this computer to training an AI model",
    description: "Nightjar trains one AI model on many ordinary computers while nobody uses them.\n\
        This package is for volunteers: it trains on a slice of text that the run's coordinator sends, and sends back \
        a compressed change of the model. It holds as soon as the owner needs the computer, and reads none of their \
        files.",
    files: &[
        ("installers/linux/nightjar.service", "usr/lib/systemd/user/nightjar.service"),
        (
            "installers/linux/nightjar/org.nightjar.Nightjar.desktop",
            "usr/share/applications/org.nightjar.Nightjar.desktop",
        ),
    ],
    has_icon: true,
    scripts: Scripts {
        installed: "installers/linux/nightjar/installed.sh",
        removing: "installers/linux/nightjar/removing.sh",
        purged: None,
        questions: None,
    },
    recommends: Recommends {
        deb: &["libvulkan1", "mesa-vulkan-drivers", "xdg-utils"],
        rpm: &["vulkan-loader", "mesa-vulkan-drivers", "xdg-utils"],
        arch: &["vulkan-icd-loader: train on the GPU", "xdg-utils: open the page in the browser"],
    },
    image: Image {
        command: "anchor",
        environment: &["NIGHTJAR_HOME=/var/lib/nightjar"],
        ports: &[],
        libraries: &["libvulkan.so.1"],
    },
    bytes_max: (30_000_000, 110_000_000),
};

pub const COORDINATOR: Package = Package {
    name: "nightjar-coordinator",
    summary: "run the training of one AI model on many computers",
    description: "Nightjar trains one AI model on many ordinary computers while nobody uses them.\n\
        This package is for who runs it: the coordinator prepares the text, leases work to devices, merges what they \
        send back, and publishes the model's versions. It needs no GPU.",
    files: &[("installers/linux/nightjar-coordinator.service", "usr/lib/systemd/system/nightjar-coordinator.service")],
    has_icon: false,
    scripts: Scripts {
        installed: "installers/linux/nightjar-coordinator/installed.sh",
        removing: "installers/linux/nightjar-coordinator/removing.sh",
        purged: Some("installers/linux/nightjar-coordinator/purged.sh"),
        questions: Some("installers/linux/nightjar-coordinator/questions.templates"),
    },
    recommends: Recommends {
        deb: &["ca-certificates"],
        rpm: &["ca-certificates"],
        arch: &["ca-certificates: databases and stores over TLS"],
    },
    image: Image { command: "--help", environment: &[], ports: &["4433/udp", "8080/tcp"], libraries: &[] },
    bytes_max: (20_000_000, 60_000_000),
};

pub const PACKAGES: [&Package; 2] = [&CLIENT, &COORDINATOR];

/// The package of this name, as an option of the command line says it.
pub fn named(name: &str) -> Result<&'static Package, String> {
    let known = || PACKAGES.map(|package| package.name).join(", ");
    PACKAGES.into_iter().find(|package| package.name == name).ok_or_else(|| format!("there are: {}", known()))
}
