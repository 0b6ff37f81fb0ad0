//! A receiver made of `docs/receivers/verify.rs`. Says `port=N`, then one JSON line for each request.
//! Secrets are the arguments.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "a program for tests that may panic, print and use the machine's clock"
)]

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    time::SystemTime,
};

use serde_json::json;

#[path = "../../docs/receivers/verify.rs"]
mod verify;

fn main() {
    let secrets: Vec<String> = std::env::args().skip(1).collect();
    let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("port={}", listener.local_addr().unwrap().port());
    let mut versions = HashMap::new();
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let (path, headers, body) = request(&stream);
        let header = |name: &str| headers.get(name).map_or("", String::as_str);
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let verdict = verify::verify(&secrets, header, &body, &mut versions, now);
        let (status, verdict, kind) = match &verdict {
            Ok(Some(event)) => ("200 OK", "new", event["type"].clone()),
            Ok(None) => ("200 OK", "old", json!(null)),
            Err(verify::Refused(why)) => ("401 Unauthorized", *why, json!(null)),
        };
        println!(
            "{}",
            json!({ "path": path, "verdict": verdict, "type": kind })
        );
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        stream.write_all(answer.as_bytes()).unwrap();
    }
}

/// The path, the headers in lower case, and the body.
fn request(stream: &TcpStream) -> (String, HashMap<String, String>, Vec<u8>) {
    let mut reader = BufReader::new(stream);
    let lines = reader.by_ref().lines().map_while(Result::ok);
    let lines: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let path = lines[0].split(' ').nth(1).unwrap().to_owned();
    let headers = lines.iter().filter_map(|line| line.split_once(": "));
    let headers: HashMap<String, String> = headers
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let mut body = vec![0; headers["content-length"].parse().unwrap()];
    reader.read_exact(&mut body).unwrap();
    (path, headers, body)
}
