//! Values on their way to PostgreSQL and back, in its binary form: what SQLite knows (nothing, an integer, a text,
//! bytes) as the type that the server expects, and what the server has as one of those.

use std::{error::Error, fmt};

use bytes::{BufMut as _, BytesMut};
use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type};

/// A value for a parameter. It never shows what it is: drivers write parameters into logs.
#[derive(Clone, PartialEq)]
pub(super) struct Parameter(Value);

impl fmt::Debug for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// A value that the server's type cannot hold.
#[derive(Debug, thiserror::Error)]
#[error("a parameter of the type {expected} cannot be {given}")]
pub(super) struct Unfit {
    expected: String,
    given: &'static str,
}

impl Parameter {
    /// The value of a parameter.
    pub(super) fn of(value: &dyn rusqlite::ToSql) -> rusqlite::Result<Self> {
        match value.to_sql()? {
            ToSqlOutput::Borrowed(value) => Ok(Self(value.try_into().map_err(unreadable)?)),
            ToSqlOutput::Owned(value) => Ok(Self(value)),
            _ => Err(rusqlite::Error::ToSqlConversionFailure(
                "a value of a kind that only SQLite knows".into(),
            )),
        }
    }

    pub(super) fn number(number: usize) -> Self {
        Self(Value::Integer(i64::try_from(number).unwrap_or(i64::MAX)))
    }

    fn kind(&self) -> &'static str {
        match self.0 {
            Value::Null => "nothing",
            Value::Integer(_) => "an integer",
            Value::Real(_) => "a fraction",
            Value::Text(_) => "a text",
            Value::Blob(_) => "bytes",
        }
    }

    fn write(&self, expected: &Type, out: &mut BytesMut) -> Option<IsNull> {
        match (&self.0, expected) {
            (Value::Null, _) => return Some(IsNull::Yes),
            (Value::Integer(n), &Type::INT8) => out.put_i64(*n),
            (Value::Integer(n), &Type::INT4) => out.put_i32(i32::try_from(*n).ok()?),
            (Value::Integer(n), &Type::INT2) => out.put_i16(i16::try_from(*n).ok()?),
            (Value::Integer(n @ (0 | 1)), &Type::BOOL) => out.put_u8(u8::from(*n == 1)),
            (Value::Integer(n), &Type::NUMERIC) => numeric(*n, out),
            (Value::Integer(n), &Type::FLOAT8) => out.put_f64(*n as f64),
            (Value::Real(x), &Type::FLOAT8) => out.put_f64(*x),
            (Value::Integer(n), expected) if is_text(expected) => {
                out.put_slice(n.to_string().as_bytes());
            }
            (Value::Text(text), expected) if is_text(expected) || *expected == Type::BYTEA => {
                out.put_slice(text.as_bytes());
            }
            (Value::Blob(bytes), &Type::BYTEA) => out.put_slice(bytes),
            // A number that lies in a column of texts, compared with one of numbers.
            (Value::Text(text), &Type::INT8) => out.put_i64(text.parse().ok()?),
            _ => return None,
        }
        Some(IsNull::No)
    }
}

fn unreadable(error: rusqlite::types::FromSqlError) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(error.into())
}

impl ToSql for Parameter {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        self.write(ty, out).ok_or_else(|| {
            let (expected, given) = (ty.name().to_owned(), self.kind());
            Unfit { expected, given }.into()
        })
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn to_sql_checked(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        self.to_sql(ty, out)
    }
}

fn is_text(ty: &Type) -> bool {
    [
        Type::TEXT,
        Type::VARCHAR,
        Type::BPCHAR,
        Type::NAME,
        Type::UNKNOWN,
    ]
    .contains(ty)
}

/// What a column of a row holds.
pub(super) fn held(row: &tokio_postgres::Row, place: usize) -> Result<ValueRef<'_>, String> {
    let found = row.try_get::<_, Option<Found<'_>>>(place);
    match found {
        Ok(Some(Found(value))) => Ok(value),
        Ok(None) => Ok(ValueRef::Null),
        Err(error) => Err(error.into_source().map_or_else(
            || "there is no such column".to_owned(),
            |source| source.to_string(),
        )),
    }
}

/// A value of the server as SQLite's.
struct Found<'a>(ValueRef<'a>);

impl<'a> FromSql<'a> for Found<'a> {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        let value = match ty {
            &Type::INT8 => ValueRef::Integer(i64::from_be_bytes(raw.try_into()?)),
            &Type::INT4 => ValueRef::Integer(i32::from_be_bytes(raw.try_into()?).into()),
            &Type::INT2 => ValueRef::Integer(i16::from_be_bytes(raw.try_into()?).into()),
            &Type::OID => ValueRef::Integer(u32::from_be_bytes(raw.try_into()?).into()),
            &Type::BOOL => ValueRef::Integer((raw != [0]).into()),
            &Type::FLOAT8 => ValueRef::Real(f64::from_be_bytes(raw.try_into()?)),
            &Type::NUMERIC => of_numeric(raw).ok_or("a number is out of range")?,
            &Type::BYTEA => ValueRef::Blob(raw),
            ty if is_text(ty) => ValueRef::Text(raw),
            other => return Err(format!("it holds a value of the type {other}").into()),
        };
        Ok(Self(value))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// Digits of a `numeric` count to this base.
const BASE: u64 = 10_000;
const NEGATIVE: u16 = 0x4000;

/// Sums are `numeric`, so whatever is compared with one is too: digits, weight of the first, sign, digits shown after
/// the point.
fn numeric(number: i64, out: &mut BytesMut) {
    let (mut rest, mut digits) = (number.unsigned_abs(), Vec::new());
    while rest > 0 {
        digits.push((rest % BASE) as i16);
        rest /= BASE;
    }
    out.put_i16(digits.len() as i16);
    out.put_i16(digits.len() as i16 - 1);
    out.put_u16(if number < 0 { NEGATIVE } else { 0 });
    out.put_i16(0);
    for digit in digits.iter().rev() {
        out.put_i16(*digit);
    }
}

/// A whole number, or a fraction where it is none; nothing where it is too large, or no number.
fn of_numeric(raw: &[u8]) -> Option<ValueRef<'static>> {
    let word = |at: usize| -> Option<i16> {
        let bytes = raw.get(at * 2..at * 2 + 2)?;
        Some(i16::from_be_bytes(bytes.try_into().ok()?))
    };
    let (count, weight, sign) = (word(0)?, i32::from(word(1)?), word(2)? as u16);
    if sign != 0 && sign != NEGATIVE {
        return None;
    }
    let (mut whole, mut fraction) = (0_i128, 0_f64);
    for at in 0..i32::from(count) {
        let digit = word(4 + usize::try_from(at).ok()?)?;
        let exponent = weight - at;
        match u32::try_from(exponent) {
            Ok(exponent) => {
                let unit = i128::from(BASE).checked_pow(exponent)?;
                whole = whole.checked_add(unit.checked_mul(digit.into())?)?;
            }
            Err(_) => fraction += f64::from(digit) * (BASE as f64).powi(exponent),
        }
    }
    let signed = if sign == NEGATIVE { -whole } else { whole };
    match fraction == 0.0 {
        true => i64::try_from(signed).ok().map(ValueRef::Integer),
        false => {
            let sum = whole as f64 + fraction;
            Some(ValueRef::Real(if sign == NEGATIVE { -sum } else { sum }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(value: impl Into<Value>, expected: &Type) -> Option<Vec<u8>> {
        let mut out = BytesMut::new();
        let is_null = Parameter(value.into()).write(expected, &mut out)?;
        assert!(matches!(is_null, IsNull::No));
        Some(out.to_vec())
    }

    #[test]
    fn an_integer_is_written_as_the_server_expects_it_or_not_at_all() {
        assert_eq!(written(7, &Type::INT2), Some(vec![0, 7]));
        assert_eq!(written(-1, &Type::INT4), Some(vec![255; 4]));
        assert_eq!(written(1, &Type::BOOL), Some(vec![1]));
        assert_eq!(written(42, &Type::TEXT), Some(b"42".to_vec()));
        assert_eq!(
            written("42".to_owned(), &Type::INT8),
            written(42, &Type::INT8)
        );
        for (value, expected) in [(2, Type::BOOL), (70_000, Type::INT2), (1, Type::BYTEA)] {
            assert_eq!(written(value, &expected), None, "{expected}");
        }
        assert_eq!(written("x".to_owned(), &Type::INT8), None);
    }

    #[test]
    fn sums_are_read_as_the_integers_that_they_are() {
        for number in [0, 1, -1, 9_999, 10_000, -123_456_789, i64::MAX, i64::MIN] {
            let mut out = BytesMut::new();
            numeric(number, &mut out);
            assert_eq!(
                of_numeric(&out),
                Some(ValueRef::Integer(number)),
                "{number}"
            );
        }
        // 1.5, and not a number.
        let half = [0, 2, 0, 0, 0, 0, 0, 1, 0, 1, 0x13, 0x88];
        assert_eq!(of_numeric(&half), Some(ValueRef::Real(1.5)));
        assert_eq!(of_numeric(&[0, 0, 0, 0, 0xc0, 0, 0, 0]), None);
    }

    #[test]
    fn a_parameter_shows_nothing_of_itself() {
        let secret = Parameter(Value::Text("hunter2".to_owned()));
        assert_eq!(format!("{secret:?}"), "…");
    }
}
