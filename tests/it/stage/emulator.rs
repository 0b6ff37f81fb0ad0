//! `renewd emulator` as a process, and its control API.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use super::RENEWD;

pub struct Emulator {
    child: Child,
    /// `http://127.0.0.1:PORT`.
    pub endpoint: String,
    pub connection_string: String,
    http: reqwest::Client,
}

impl Emulator {
    /// Starts it over plain http on a port of its own and waits until it accepts.
    pub fn start(args: &[&str]) -> Self {
        let mut child = Command::new(RENEWD)
            .args(["emulator", "--http", "--listen", "127.0.0.1:0"])
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let connection_string = line.trim().to_owned();
        let endpoint = connection_string
            .strip_prefix("endpoint=")
            .and_then(|rest| rest.split("/;accesskey=").next())
            .unwrap_or_else(|| panic!("the emulator said {line:?}"))
            .to_owned();
        rustls::crypto::ring::default_provider()
            .install_default()
            .ok();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self {
            child,
            endpoint,
            connection_string,
            http,
        }
    }

    /// The primary access key.
    pub fn key(&self) -> &str {
        self.connection_string.split_once("accesskey=").unwrap().1
    }

    /// `PUT`s, `POST`s or `GET`s at the control API.
    pub async fn control(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let url = format!("{}/_emulator/v1/{path}", self.endpoint);
        let mut request = self.http.request(method.parse().unwrap(), url);
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        let answer = request.send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{method} {path}: {status} {text}");
        if text.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&text).unwrap()
        }
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// An emulator over TLS, ended with the test.
pub struct SecureEmulator {
    child: Child,
    pub ca: String,
    pub connection_string: String,
}

impl SecureEmulator {
    pub fn start() -> Self {
        let mut child = Command::new(RENEWD)
            .args(["emulator", "--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut line = || lines.next().unwrap().unwrap();
        let ca = line().strip_prefix("ca=").unwrap().to_owned();
        let connection_string = line();
        Self {
            child,
            ca,
            connection_string,
        }
    }
}

impl Drop for SecureEmulator {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
