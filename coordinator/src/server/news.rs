//! What the ledger's newest entries mean to whoever holds connections: who is enrolled, which leases take an upload,
//! what may be downloaded. The leader's own process goes by them, and so do its doors, which hear them by [`wire`].

use super::{
    catalog::Catalog,
    context::Present,
    members::Members,
    uploads::{Rubbish, Uploads},
};
use crate::engine::{
    REVOKED,
    record::{DeviceRecord, Record},
};
use nightjar_shared::{
    blob::BlobRef,
    ids::{DeviceId, Generation, LeaseId},
    public_name::PublicName,
    wire::{
        self,
        close::CloseCode,
        door::{self, news::Kind},
        limits::tame,
    },
};
use std::sync::Arc;

/// A device, as far as doors go by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub id: DeviceId,
    /// As its owner calls it.
    pub name: String,
    /// What trains.
    pub what: String,
    /// Of the invite that it came with.
    pub invite_nonce: Vec<u8>,
    /// Whether it has left.
    pub left: bool,
    /// As its owner wants to be called by everybody.
    pub public_name: Option<PublicName>,
}

impl From<&DeviceRecord> for Member {
    fn from(record: &DeviceRecord) -> Self {
        Member {
            id: record.id,
            name: record.name.clone(),
            what: record.device.clone(),
            invite_nonce: record.invite_nonce.clone(),
            left: record.left,
            public_name: record.public_name.clone(),
        }
    }
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A device enrolled, changed its name, or left.
    Member(Member),
    /// A lease to train was issued.
    LeaseOpened {
        /// Which.
        id: LeaseId,
        /// Of the coordinator that issued it.
        generation: Generation,
        /// Whose.
        device: DeviceId,
    },
    /// A lease ended.
    LeaseClosed(LeaseId),
    /// A delta was merged.
    DeltaMerged {
        /// Whose.
        device: DeviceId,
        /// It.
        delta: BlobRef,
    },
    /// A version was published as these.
    Published(Vec<BlobRef>),
    /// An operator took a device out of the run.
    Revoked(DeviceId),
}

impl News {
    /// What an entry means; `None` where doors have no part in it.
    pub fn of(record: &Record) -> Option<Self> {
        match record {
            Record::Device(device) => Some(News::Member(device.into())),
            Record::LeaseIssued(lease) if lease.kind.trains() => {
                Some(News::LeaseOpened { id: lease.id, generation: lease.generation, device: lease.device })
            }
            Record::LeaseIssued(_) | Record::Evaluation(_) => None,
            Record::LeaseClosed { id, .. } => Some(News::LeaseClosed(*id)),
            Record::Delta(delta) => Some(News::DeltaMerged { device: delta.device, delta: delta.blob }),
            Record::Version(version) => Some(News::Published(version.published().collect())),
            Record::DeviceRevoked { id, .. } => Some(News::Revoked(*id)),
            Record::InviteRevoked { .. }
            | Record::Paused(_)
            | Record::Extended { .. }
            | Record::Series(_)
            | Record::Audit(_) => None,
        }
    }

    /// As it travels.
    pub fn to_wire(&self) -> door::News {
        let bytes = |device: &DeviceId| device.0.to_vec();
        let kind = match self {
            News::Member(member) => Kind::Member(door::Member {
                device: bytes(&member.id),
                name: member.name.clone(),
                what: member.what.clone(),
                invite_nonce: member.invite_nonce.clone(),
                left: member.left,
                public_name: member.public_name.as_ref().map(ToString::to_string).unwrap_or_default(),
            }),
            News::LeaseOpened { id, generation, device } => {
                Kind::LeaseOpened(door::LeaseOpened { lease_id: id.0, generation: generation.0, device: bytes(device) })
            }
            News::LeaseClosed(id) => Kind::LeaseClosed(door::LeaseClosed { lease_id: id.0 }),
            News::DeltaMerged { device, delta } => {
                Kind::DeltaMerged(door::DeltaMerged { device: bytes(device), blob: Some(delta.to_wire()) })
            }
            News::Published(blobs) => {
                Kind::Published(door::Published { blobs: blobs.iter().map(|blob| blob.to_wire()).collect() })
            }
            News::Revoked(id) => Kind::Revoked(door::Revoked { device: bytes(id) }),
        };
        door::News { kind: Some(kind) }
    }

    /// What came over the wire; `None` where it makes no sense, or is of a later release.
    pub fn from_wire(news: door::News) -> Option<Self> {
        let device = |bytes: &[u8]| DeviceId::from_bytes(bytes);
        let blob = |blob: &wire::Blob| BlobRef::from_wire(blob);
        Some(match news.kind? {
            Kind::Following(_) => return None,
            Kind::Member(member) => News::Member(Member {
                id: device(&member.device)?,
                name: tame(&member.name),
                what: tame(&member.what),
                invite_nonce: member.invite_nonce,
                left: member.left,
                public_name: PublicName::parse(&member.public_name).ok(),
            }),
            Kind::LeaseOpened(lease) => News::LeaseOpened {
                id: LeaseId(lease.lease_id),
                generation: Generation(lease.generation),
                device: device(&lease.device)?,
            },
            Kind::LeaseClosed(lease) => News::LeaseClosed(LeaseId(lease.lease_id)),
            Kind::DeltaMerged(merged) => {
                News::DeltaMerged { device: device(&merged.device)?, delta: blob(merged.blob.as_ref()?)? }
            }
            Kind::Revoked(revoked) => News::Revoked(device(&revoked.device)?),
            Kind::Published(published) => News::Published(published.blobs.iter().map(blob).collect::<Option<_>>()?),
        })
    }
}

/// What a process knows of the ledger that holds connections. Clones are the same.
#[derive(Clone)]
pub struct Knowledge {
    /// Who is enrolled.
    pub members: Arc<Members>,
    /// What may be downloaded.
    pub catalog: Arc<Catalog>,
    /// What is uploaded for which lease.
    pub uploads: Arc<Uploads>,
    /// Who is connected: whoever is taken out of the run is not any more.
    pub present: Arc<Present>,
}

impl Knowledge {
    /// Takes news in; what is rubbish now is to be removed, by [`Uploads::clear`].
    pub fn take(&self, news: &News) -> Vec<Rubbish> {
        match news {
            News::Member(member) => self.members.note(member),
            News::Revoked(id) => {
                self.members.forget(*id);
                self.present.end(*id, CloseCode::Revoked, REVOKED);
            }
            News::Published(blobs) => self.catalog.add(blobs.iter().copied()),
            News::LeaseOpened { .. } | News::LeaseClosed(_) | News::DeltaMerged { .. } => {}
        }
        self.uploads.note(news)
    }
}
