//! Sets of ASCII characters, and what names of classes stand for among them.

/// A set of ASCII characters. What lies beyond is never in a topic's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Class(u128);

/// The letters beyond ASCII that Unicode folds into ASCII ones.
const FOLDED: [(u32, char); 2] = [(0x17f, 's'), (0x212a, 'k')];

impl Class {
    pub(super) const ALL: Class = Class(u128::MAX);

    /// The characters that pass.
    pub(super) fn of(test: impl Fn(u8) -> bool) -> Class {
        let mut class = Class::default();
        for byte in 0..128 {
            if test(byte) {
                class.0 |= 1 << byte;
            }
        }
        class
    }

    /// The ASCII part of a range of code points; with `fold`, in both cases.
    pub(super) fn range(low: u32, high: u32, fold: bool) -> Class {
        let class = Class::of(|byte| (low..=high).contains(&u32::from(byte)));
        if !fold {
            return class;
        }
        let mut class = class.folded();
        for (code, letter) in FOLDED {
            if (low..=high).contains(&code) {
                class = class | Class::of(|b| b == letter as u8).folded();
            }
        }
        class
    }

    /// With every letter in both cases.
    pub(super) fn folded(self) -> Class {
        Class::of(|byte| self.has(byte.to_ascii_lowercase()) || self.has(byte.to_ascii_uppercase()))
    }

    pub(super) fn negated(self) -> Class {
        Class(!self.0)
    }

    fn has(self, byte: u8) -> bool {
        self.0 >> byte & 1 == 1
    }

    /// The class in the syntax of the crate `regex`, for bytes.
    pub(super) fn pattern(self) -> String {
        use std::fmt::Write;
        // No byte of a name is above 127: a class of those alone matches nothing.
        let mut pattern = String::from(r"[\x80-\xff");
        if self != Class::default() {
            pattern = String::from("[");
        }
        for byte in (0..128).filter(|byte| self.has(*byte)) {
            // Writing to a string cannot fail.
            let _ = write!(pattern, r"\x{byte:02x}");
        }
        pattern.push(']');
        pattern
    }
}

impl std::ops::BitOr for Class {
    type Output = Class;

    fn bitor(self, other: Class) -> Class {
        Class(self.0 | other.0)
    }
}

/// `\d` and its kin, by the letter.
pub(super) fn perl(letter: char) -> Option<Class> {
    let class = match letter.to_ascii_lowercase() {
        'd' => Class::of(|b| b.is_ascii_digit()),
        's' => Class::of(|b| matches!(b, b'\t' | b'\n' | 0x0c | b'\r' | b' ')),
        'w' => Class::of(|b| b.is_ascii_alphanumeric() || b == b'_'),
        _ => return None,
    };
    Some(if letter.is_ascii_uppercase() {
        class.negated()
    } else {
        class
    })
}

/// `[:alpha:]` and its kin, the name with brackets and colons.
pub(super) fn posix(name: &str, fold: bool) -> Option<Class> {
    let inner = name.strip_prefix("[:")?.strip_suffix(":]")?;
    let (inner, negated) = match inner.strip_prefix('^') {
        Some(inner) => (inner, true),
        None => (inner, false),
    };
    let class = match inner {
        "alnum" => Class::of(|b| b.is_ascii_alphanumeric()),
        "alpha" => Class::of(|b| b.is_ascii_alphabetic()),
        "ascii" => Class::ALL,
        "blank" => Class::of(|b| matches!(b, b'\t' | b' ')),
        "cntrl" => Class::of(|b| b.is_ascii_control()),
        "digit" => Class::of(|b| b.is_ascii_digit()),
        "graph" => Class::of(|b| b.is_ascii_graphic()),
        "lower" => Class::of(|b| b.is_ascii_lowercase()),
        "print" => Class::of(|b| b.is_ascii_graphic() || b == b' '),
        "punct" => Class::of(|b| b.is_ascii_punctuation()),
        "space" => Class::of(|b| matches!(b, b'\t'..=b'\r' | b' ')),
        "upper" => Class::of(|b| b.is_ascii_uppercase()),
        "word" => Class::of(|b| b.is_ascii_alphanumeric() || b == b'_'),
        "xdigit" => Class::of(|b| b.is_ascii_hexdigit()),
        _ => return None,
    };
    let class = if fold { class.folded() } else { class };
    Some(if negated { class.negated() } else { class })
}

/// The ASCII part of a Unicode category or script; none if RE2/J knows no such name.
pub(super) fn unicode(name: &str, fold: bool) -> Option<Class> {
    let class = match name {
        "Any" => Class::ALL,
        "C" | "Cc" => Class::of(|b| b.is_ascii_control()),
        "L" | "Latin" => Class::of(|b| b.is_ascii_alphabetic()),
        "Lu" | "Ll" if fold => Class::of(|b| b.is_ascii_alphabetic()),
        "Lu" => Class::of(|b| b.is_ascii_uppercase()),
        "Ll" => Class::of(|b| b.is_ascii_lowercase()),
        "Common" => Class::of(|b| !b.is_ascii_alphabetic()),
        "N" | "Nd" => Class::of(|b| b.is_ascii_digit()),
        "P" => Class::of(|b| b.is_ascii_punctuation() && !is_symbol(b)),
        "Pc" => Class::of(|b| b == b'_'),
        "Pd" => Class::of(|b| b == b'-'),
        "Pe" => Class::of(|b| matches!(b, b')' | b']' | b'}')),
        "Ps" => Class::of(|b| matches!(b, b'(' | b'[' | b'{')),
        "Po" => {
            Class::of(|b| b.is_ascii_punctuation() && !is_symbol(b) && !b"_-)]}([{".contains(&b))
        }
        "S" => Class::of(is_symbol),
        "Sc" => Class::of(|b| b == b'$'),
        "Sk" => Class::of(|b| matches!(b, b'^' | b'`')),
        "Sm" => Class::of(|b| matches!(b, b'+' | b'<' | b'=' | b'>' | b'|' | b'~')),
        "Z" | "Zs" => Class::of(|b| b == b' '),
        _ if BEYOND_ASCII.contains(&name) => Class::default(),
        _ => return None,
    };
    Some(class)
}

fn is_symbol(byte: u8) -> bool {
    b"$^`+<=>|~".contains(&byte)
}

/// Categories and scripts that RE2/J 1.8 knows and that have no ASCII characters.
#[rustfmt::skip]
const BEYOND_ASCII: &[&str] = &[
    "Cf", "Co", "Cs", "Lm", "Lo", "Lt", "M", "Mc", "Me", "Mn", "Nl", "No", "Pf", "Pi", "So", "Zl", "Zp",
    "Arabic", "Armenian", "Avestan", "Balinese", "Bamum", "Batak", "Bengali", "Bopomofo", "Brahmi",
    "Braille", "Buginese", "Buhid", "Canadian_Aboriginal", "Carian", "Cham", "Cherokee", "Coptic",
    "Cuneiform", "Cypriot", "Cyrillic", "Deseret", "Devanagari", "Egyptian_Hieroglyphs", "Ethiopic",
    "Georgian", "Glagolitic", "Gothic", "Greek", "Gujarati", "Gurmukhi", "Han", "Hangul", "Hanunoo",
    "Hebrew", "Hiragana", "Imperial_Aramaic", "Inherited", "Inscriptional_Pahlavi",
    "Inscriptional_Parthian", "Javanese", "Kaithi", "Kannada", "Katakana", "Kayah_Li", "Kharoshthi",
    "Khmer", "Lao", "Lepcha", "Limbu", "Linear_B", "Lisu", "Lycian", "Lydian", "Malayalam", "Mandaic",
    "Meetei_Mayek", "Mongolian", "Myanmar", "New_Tai_Lue", "Nko", "Ogham", "Ol_Chiki", "Old_Italic",
    "Old_Persian", "Old_South_Arabian", "Old_Turkic", "Oriya", "Osmanya", "Phags_Pa", "Phoenician",
    "Rejang", "Runic", "Samaritan", "Saurashtra", "Shavian", "Sinhala", "Sundanese", "Syloti_Nagri",
    "Syriac", "Tagalog", "Tagbanwa", "Tai_Le", "Tai_Tham", "Tai_Viet", "Tamil", "Telugu", "Thaana",
    "Thai", "Tibetan", "Tifinagh", "Ugaritic", "Unknown", "Vai", "Yi",
];
