//! This device's key: Ed25519, made by the browser, which gives its secret half to nobody, not even to this page. It
//! lies in the origin's database.

use super::{scope, words};
use js_sys::{Array, Object, Promise, Uint8Array};
use nightjar_shared::{ids::DeviceId, invite::spki_of_ed25519};
use wasm_bindgen::{JsCast, JsValue, closure::Closure};
use wasm_bindgen_futures::JsFuture;
use web_sys::{
    CryptoKey, CryptoKeyPair, IdbDatabase, IdbObjectStore, IdbOpenDbRequest, IdbRequest, IdbTransactionMode,
    SubtleCrypto,
};

const DATABASE: &str = "nightjar";
const STORE: &str = "keys";
const NAME: &str = "device";
const ALGORITHM: &str = "Ed25519";

/// See the module.
pub struct DeviceKey {
    secret: CryptoKey,
    /// The public half: 32 bytes.
    pub public: [u8; 32],
}

/// A key that cannot be made or used.
#[derive(Debug, thiserror::Error)]
#[error("this browser gives no key to this device ({0}); a newer browser may")]
pub struct KeyError(String);

impl From<JsValue> for KeyError {
    fn from(thrown: JsValue) -> Self {
        KeyError(words(&thrown))
    }
}

fn subtle() -> Result<SubtleCrypto, JsValue> {
    Ok(scope().crypto()?.subtle())
}

impl DeviceKey {
    /// The key of this origin; made at the first start.
    pub async fn open() -> Result<Self, KeyError> {
        let database = database().await?;
        let known = answered(&store(&database, IdbTransactionMode::Readonly)?.get(&NAME.into())?).await?;
        let pair: CryptoKeyPair = if known.is_undefined() {
            let usages = Array::of2(&"sign".into(), &"verify".into());
            let made = subtle()?.generate_key_with_str(ALGORITHM, false, &usages)?;
            let made = JsFuture::from(made).await?;
            let stored = store(&database, IdbTransactionMode::Readwrite)?.put_with_key(&made, &NAME.into())?;
            answered(&stored).await?;
            made.unchecked_into()
        } else {
            known.unchecked_into()
        };
        database.close();
        let shown = JsFuture::from(subtle()?.export_key("raw", &pair.get_public_key())?).await?;
        let public = Uint8Array::new(&shown).to_vec().try_into().map_err(|_| KeyError("it has no 32 bytes".into()))?;
        Ok(DeviceKey { secret: pair.get_private_key(), public })
    }

    /// Who this device is.
    pub fn device(&self) -> DeviceId {
        DeviceId::of_spki(&spki_of_ed25519(&self.public))
    }

    /// Signs.
    pub async fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let signed = subtle()?.sign_with_str_and_u8_array(ALGORITHM, &self.secret, message)?;
        Ok(Uint8Array::new(&JsFuture::from(signed).await?).to_vec())
    }
}

/// Whether a signature is of this public key.
pub async fn verifies(public: &[u8; 32], message: &[u8], signature: &[u8]) -> Result<bool, KeyError> {
    let (subtle, algorithm) = (subtle()?, Object::new());
    js_sys::Reflect::set(&algorithm, &"name".into(), &ALGORITHM.into())?;
    let bytes = Uint8Array::from(&public[..]);
    let imported = subtle.import_key_with_object("raw", &bytes, &algorithm, true, &Array::of1(&"verify".into()))?;
    let key: CryptoKey = JsFuture::from(imported).await?.unchecked_into();
    let verified = subtle.verify_with_str_and_u8_array_and_u8_array(ALGORITHM, &key, signature, message)?;
    Ok(JsFuture::from(verified).await?.is_truthy())
}

async fn database() -> Result<IdbDatabase, JsValue> {
    let factory = scope().indexed_db()?.ok_or("it has no database for this page")?;
    let request: IdbOpenDbRequest = factory.open_with_u32(DATABASE, 1)?;
    let opened = request.clone();
    let make = Closure::once(move || {
        // It is refused where the store is there already, which is as well.
        let made = opened.result().map(|database| database.unchecked_into::<IdbDatabase>().create_object_store(STORE));
        drop(made);
    });
    request.set_onupgradeneeded(Some(make.as_ref().unchecked_ref()));
    Ok(answered(&request).await?.unchecked_into())
}

fn store(database: &IdbDatabase, mode: IdbTransactionMode) -> Result<IdbObjectStore, JsValue> {
    database.transaction_with_str_and_mode(STORE, mode)?.object_store(STORE)
}

/// What the database answers.
async fn answered(request: &IdbRequest) -> Result<JsValue, JsValue> {
    let settled = Promise::new(&mut |done, refused| {
        request.set_onsuccess(Some(&done));
        request.set_onerror(Some(&refused));
    });
    match JsFuture::from(settled).await {
        Ok(_) => request.result(),
        Err(_) => Err(request.error()?.map_or(JsValue::NULL, Into::into)),
    }
}
