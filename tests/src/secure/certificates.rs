//! Certificates by openssl: an authority and what it signs.

use crate::environment::said;
use anyhow::{Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Somebody who signs certificates.
#[derive(Clone, Debug)]
pub struct Authority {
    /// Its certificate.
    pub certificate: PathBuf,
    key: PathBuf,
    dir: PathBuf,
}

/// A certificate and its key, both PEM.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The certificate.
    pub certificate: PathBuf,
    /// The private key, not encrypted.
    pub key: PathBuf,
}

/// A new key of the smallest usual kind.
const NEW_KEY: [&str; 5] = [
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:prime256v1",
    "-nodes",
];

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// Where openssl fails.
    pub fn new(dir: &Path, name: &str) -> Result<Self> {
        let authority = Self {
            certificate: dir.join(format!("{name}.crt")),
            key: dir.join(format!("{name}.key")),
            dir: dir.to_owned(),
        };
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-days", "2"]).args(NEW_KEY);
        command.args(["-subj", &format!("/CN={name}")]);
        command.args(["-addext", "keyUsage=critical,keyCertSign,cRLSign"]);
        command.arg("-keyout").arg(&authority.key);
        command.arg("-out").arg(&authority.certificate);
        run(command)?;
        Ok(authority)
    }

    /// A certificate for this common name and these other names (`DNS:localhost`).
    ///
    /// # Errors
    /// Where openssl fails.
    pub fn issue(&self, name: &str, others: &str) -> Result<Issued> {
        let file = |end: &str| self.dir.join(format!("{name}.{end}"));
        let issued = Issued {
            certificate: file("crt"),
            key: file("key"),
        };
        let mut request = Command::new("openssl");
        request.args(["req", "-new"]).args(NEW_KEY);
        request.args(["-subj", &format!("/CN={name}")]);
        request.arg("-keyout").arg(&issued.key);
        request.arg("-out").arg(file("csr"));
        run(request)?;
        std::fs::write(file("ext"), format!("subjectAltName={others}\n"))?;
        let mut sign = Command::new("openssl");
        sign.args(["x509", "-req", "-days", "2", "-CAcreateserial"]);
        sign.arg("-in").arg(file("csr"));
        sign.arg("-extfile").arg(file("ext"));
        sign.arg("-CA").arg(&self.certificate);
        sign.arg("-CAkey").arg(&self.key);
        sign.arg("-out").arg(&issued.certificate);
        run(sign)?;
        Ok(issued)
    }
}

impl Issued {
    /// The key, encrypted with this password.
    ///
    /// # Errors
    /// Where openssl fails.
    pub fn encrypted_key(&self, password: &str) -> Result<PathBuf> {
        let encrypted = self.key.with_extension("encrypted.key");
        let mut command = Command::new("openssl");
        command.args(["pkcs8", "-topk8", "-v2", "aes256"]);
        command.args(["-passout", &format!("pass:{password}")]);
        command.arg("-in").arg(&self.key);
        command.arg("-out").arg(&encrypted);
        run(command)?;
        Ok(encrypted)
    }

    /// Certificate and key in one PKCS #12 file, as Java takes them.
    ///
    /// # Errors
    /// Where openssl fails.
    pub fn pkcs12(&self, password: &str) -> Result<PathBuf> {
        let store = self.key.with_extension("p12");
        let mut command = Command::new("openssl");
        command.args(["pkcs12", "-export", "-name", "server"]);
        command.args(["-passout", &format!("pass:{password}")]);
        command.arg("-in").arg(&self.certificate);
        command.arg("-inkey").arg(&self.key);
        command.arg("-out").arg(&store);
        run(command)?;
        Ok(store)
    }
}

fn run(mut command: Command) -> Result<()> {
    let output = command.output()?;
    ensure!(
        output.status.success(),
        "{command:?} failed: {}",
        said(&output)
    );
    Ok(())
}
