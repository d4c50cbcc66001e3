//! The stack machine of pickles, protocols 2 to 5, as far as state dicts need it.
//!
//! Objects live in one list and name each other by index, so a pickle that nests a million times deep costs a million entries and
//! no recursion, and one that copies an object copies an index. Every instruction adds at most one object. An object holds what was
//! pushed for it, of which there is no more than instructions, or a copy: of the few arguments of a tensor or a storage, or of a list of
//! pairs, and all such lists together have no more pairs than the pickle has bytes.

use std::collections::HashMap;

use super::Result;
use super::globals::{Global, lookup};

/// What is read of a storage's tuple: "storage", class, key, location, number of values, and the view of old files.
const STORAGE_ITEMS: usize = 6;

/// What is read of a tensor's arguments: storage, offset, size, stride.
const TENSOR_ITEMS: usize = 4;

/// Index of an object.
pub(super) type Id = usize;

/// What a pickle makes.
#[derive(Debug)]
pub(super) enum Object {
    None,
    Int(i64),
    Text(String),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    /// What stands for a storage: the first [`STORAGE_ITEMS`] of its tuple's items.
    Storage(Vec<Id>),
    /// A tensor, by the first [`TENSOR_ITEMS`] arguments of the function that makes it.
    Tensor(Vec<Id>),
    /// Anything else.
    Opaque,
}

/// A pickle that has run.
#[derive(Debug)]
pub(super) struct Pickle {
    objects: Vec<Object>,
    root: Id,
}

impl Pickle {
    /// The object of an index.
    pub(super) fn get(&self, id: Id) -> &Object {
        self.objects.get(id).unwrap_or(&Object::Opaque)
    }

    /// What the pickle holds.
    pub(super) fn root(&self) -> Id {
        self.root
    }

    /// A text object.
    pub(super) fn text(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Object::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A number that is not negative.
    pub(super) fn size(&self, id: Id) -> Option<usize> {
        match self.get(id) {
            Object::Int(value) => usize::try_from(*value).ok(),
            _ => None,
        }
    }

    /// The storages the pickle names.
    pub(super) fn storages(&self) -> impl Iterator<Item = &[Id]> {
        self.objects.iter().filter_map(|object| match object {
            Object::Storage(items) => Some(items.as_slice()),
            _ => None,
        })
    }
}

/// Runs the pickle at the beginning of `bytes`; also gives the number of bytes it took.
pub(super) fn run(bytes: &[u8]) -> Result<(Pickle, usize)> {
    let mut machine = Machine {
        bytes,
        at: 0,
        objects: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        pairs_left: bytes.len(),
    };
    while !machine.step()? {}
    let root = machine.pop()?;
    let pickle = Pickle {
        objects: machine.objects,
        root,
    };
    Ok((pickle, machine.at))
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    objects: Vec<Object>,
    stack: Vec<Id>,
    /// Heights of the stack at which marks were set.
    marks: Vec<usize>,
    memo: HashMap<usize, Id>,
    /// Pairs that may still be copied from lists.
    pairs_left: usize,
}

impl<'a> Machine<'a> {
    /// One instruction; true when it was the last.
    fn step(&mut self) -> Result<bool> {
        match self.byte()? {
            b'.' => return Ok(true),
            // PROTO, FRAME: nothing to do.
            0x80 => {
                self.byte()?;
            }
            0x95 => {
                self.take(8)?;
            }
            b'(' => self.marks.push(self.stack.len()),
            b'0' => {
                self.pop()?;
            }
            b'1' => {
                self.since_mark()?;
            }
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            b'N' => self.push(Object::None),
            b'J' | b'K' | b'M' | 0x8a | 0x8b | b'G' => self.number()?,
            b'X' | 0x8c | 0x8d | b'U' | b'T' | b'B' | b'C' | 0x8e | 0x96 => self.string()?,
            b']' => self.push(Object::List(Vec::new())),
            b'}' => self.push(Object::Dict(Vec::new())),
            b')' => self.push(Object::Tuple(Vec::new())),
            // NEWTRUE, NEWFALSE, EMPTY_SET
            0x88 | 0x89 | 0x8f => self.push(Object::Opaque),
            b't' => {
                let items = self.since_mark()?;
                self.push(Object::Tuple(items));
            }
            b'l' => {
                let items = self.since_mark()?;
                self.push(Object::List(items));
            }
            b'd' => {
                let pairs = pairs(&self.since_mark()?)?;
                self.push(Object::Dict(pairs));
            }
            // TUPLE1, TUPLE2, TUPLE3
            code @ 0x85..=0x87 => {
                let items = self.last(usize::from(code - 0x84))?;
                self.push(Object::Tuple(items));
            }
            b'a' => {
                let items = self.last(1)?;
                self.extend(items)?;
            }
            b'e' | 0x90 => {
                let items = self.since_mark()?;
                self.extend(items)?;
            }
            b's' => {
                let items = self.last(2)?;
                self.insert(&items)?;
            }
            b'u' => {
                let items = self.since_mark()?;
                self.insert(&items)?;
            }
            b'q' | b'r' | 0x94 | b'h' | b'j' => self.memory()?,
            b'c' | 0x93 => self.global()?,
            b'R' | 0x81 => self.call()?,
            // BUILD: attributes of the object below, of which none matters here.
            b'b' => {
                self.pop()?;
                self.top()?;
            }
            b'Q' => {
                let id = self.pop()?;
                match self.object(id) {
                    Object::Tuple(items) => {
                        let items = first(items, STORAGE_ITEMS);
                        self.push(Object::Storage(items));
                    }
                    _ => return Err(self.damaged("a storage is named by no tuple")),
                }
            }
            other => return Err(self.damaged(&format!("unknown instruction {other:#04x}"))),
        }
        Ok(false)
    }

    fn number(&mut self) -> Result<()> {
        let object = match self.bytes[self.at - 1] {
            b'J' => Object::Int(i32::from_le_bytes(self.array()?).into()),
            b'K' => Object::Int(self.byte()?.into()),
            b'M' => Object::Int(u16::from_le_bytes(self.array()?).into()),
            b'G' => {
                self.take(8)?;
                Object::Opaque
            }
            code => {
                let length = if code == 0x8a {
                    usize::from(self.byte()?)
                } else {
                    u32::from_le_bytes(self.array()?) as usize
                };
                long(self.take(length)?)
            }
        };
        self.push(object);
        Ok(())
    }

    fn string(&mut self) -> Result<()> {
        let code = self.bytes[self.at - 1];
        let length = match code {
            0x8c | b'U' | b'C' => usize::from(self.byte()?),
            b'X' | b'T' | b'B' => u32::from_le_bytes(self.array()?) as usize,
            _ => usize::try_from(u64::from_le_bytes(self.array()?)).unwrap_or(usize::MAX),
        };
        let bytes = self.take(length)?;
        let is_text = matches!(code, b'X' | 0x8c | 0x8d | b'U' | b'T');
        let object = match std::str::from_utf8(bytes) {
            Ok(text) if is_text => Object::Text(text.into()),
            // Python 2's strings may be bytes of anything.
            _ => Object::Opaque,
        };
        self.push(object);
        Ok(())
    }

    /// Keeps the top of the stack under a number, or brings back what was kept.
    fn memory(&mut self) -> Result<()> {
        let code = self.bytes[self.at - 1];
        let key = match code {
            0x94 => self.memo.len(),
            b'q' | b'h' => usize::from(self.byte()?),
            _ => u32::from_le_bytes(self.array()?) as usize,
        };
        if matches!(code, b'h' | b'j') {
            let kept = self.memo.get(&key).copied();
            let kept =
                kept.ok_or_else(|| self.damaged("something is recalled that was not kept"))?;
            self.stack.push(kept);
        } else {
            let top = self.top()?;
            self.memo.insert(key, top);
        }
        Ok(())
    }

    fn global(&mut self) -> Result<()> {
        let (module, name) = if self.bytes[self.at - 1] == b'c' {
            (self.line()?, self.line()?)
        } else {
            let names = self.last(2)?;
            let text = |id: Id| match self.object(id) {
                Object::Text(text) => Ok(text.clone()),
                _ => Err(self.damaged("a name is no text")),
            };
            (text(names[0])?, text(names[1])?)
        };
        let global = lookup(&module, &name)?;
        self.push(Object::Global(global));
        Ok(())
    }

    /// What a function or class makes of its arguments.
    fn call(&mut self) -> Result<()> {
        let items = self.last(2)?;
        let Object::Tuple(arguments) = self.object(items[1]) else {
            return Err(self.damaged("a call without a tuple of arguments"));
        };
        match *self.object(items[0]) {
            Object::Global(Global::Dict) => {
                let dict = self.dict_of(arguments.first().copied())?;
                self.push(dict);
            }
            Object::Global(Global::Tensor) => {
                let arguments = first(arguments, TENSOR_ITEMS);
                self.push(Object::Tensor(arguments));
            }
            Object::Global(Global::Parameter) => match arguments.first() {
                Some(&data) => self.stack.push(data),
                None => return Err(self.damaged("a parameter of nothing")),
            },
            Object::Global(Global::Opaque) | Object::Opaque => self.push(Object::Opaque),
            _ => return Err(self.damaged("a call of what is no function")),
        }
        Ok(())
    }

    /// A dictionary from the argument of its class: none, or a list of pairs (Python 2's `OrderedDict`).
    fn dict_of(&mut self, argument: Option<Id>) -> Result<Object> {
        let Some(Object::List(items)) = argument.map(|id| self.object(id)) else {
            return Ok(Object::Dict(Vec::new()));
        };
        let Some(pairs_left) = self.pairs_left.checked_sub(items.len()) else {
            return Err(self.damaged("its dictionaries claim more entries than it can hold"));
        };
        let mut entries = Vec::with_capacity(items.len());
        for &item in items {
            match self.object(item) {
                Object::List(pair) | Object::Tuple(pair) if pair.len() == 2 => {
                    entries.push((pair[0], pair[1]));
                }
                _ => return Err(self.damaged("a dictionary of what are no pairs")),
            }
        }
        self.pairs_left = pairs_left;
        Ok(Object::Dict(entries))
    }

    fn extend(&mut self, items: Vec<Id>) -> Result<()> {
        let top = self.top()?;
        match &mut self.objects[top] {
            Object::List(list) => list.extend(items),
            Object::Opaque => {}
            _ => return Err(self.damaged("items are added to what is no list")),
        }
        Ok(())
    }

    fn insert(&mut self, items: &[Id]) -> Result<()> {
        let entries = pairs(items)?;
        let top = self.top()?;
        match &mut self.objects[top] {
            Object::Dict(dict) => dict.extend(entries),
            Object::Opaque => {}
            _ => return Err(self.damaged("entries are added to what is no dictionary")),
        }
        Ok(())
    }

    fn push(&mut self, object: Object) {
        self.stack.push(self.objects.len());
        self.objects.push(object);
    }

    fn object(&self, id: Id) -> &Object {
        &self.objects[id]
    }

    fn top(&self) -> Result<Id> {
        let top = self.stack.last().copied();
        top.ok_or_else(|| self.damaged("the stack is empty"))
    }

    fn pop(&mut self) -> Result<Id> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    /// The `count` topmost items, in the order they were pushed.
    fn last(&mut self, count: usize) -> Result<Vec<Id>> {
        match self.stack.len().checked_sub(count) {
            Some(height) => Ok(self.stack.split_off(height)),
            None => Err(self.damaged("the stack is empty")),
        }
    }

    fn since_mark(&mut self) -> Result<Vec<Id>> {
        let mark = self.marks.pop();
        match mark {
            Some(height) if height <= self.stack.len() => Ok(self.stack.split_off(height)),
            _ => Err(self.damaged("a mark is missing")),
        }
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        match self.bytes[self.at..].get(..length) {
            Some(taken) => {
                self.at += length;
                Ok(taken)
            }
            None => Err(self.damaged("it ends early")),
        }
    }

    /// Text up to the end of the line.
    fn line(&mut self) -> Result<String> {
        let rest = &self.bytes[self.at..];
        match rest.iter().position(|&byte| byte == b'\n') {
            Some(end) => {
                self.at += end + 1;
                Ok(String::from_utf8_lossy(&rest[..end]).into_owned())
            }
            None => Err(self.damaged("it ends early")),
        }
    }

    fn damaged(&self, what: &str) -> String {
        format!("its pickle is damaged at byte {}: {what}", self.at)
    }
}

/// A whole number of any length; one beyond 64 bits is of no use here.
fn long(bytes: &[u8]) -> Object {
    if bytes.len() > 8 {
        return Object::Opaque;
    }
    let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut wide = if negative { [0xff; 8] } else { [0; 8] };
    wide[..bytes.len()].copy_from_slice(bytes);
    Object::Int(i64::from_le_bytes(wide))
}

/// The first `count` items, or as many as there are.
fn first(items: &[Id], count: usize) -> Vec<Id> {
    items[..items.len().min(count)].to_vec()
}

fn pairs(items: &[Id]) -> Result<Vec<(Id, Id)>> {
    if !items.len().is_multiple_of(2) {
        return Err("its pickle is damaged: a key without a value".into());
    }
    Ok(items
        .chunks_exact(2)
        .map(|pair| (pair[0], pair[1]))
        .collect())
}
