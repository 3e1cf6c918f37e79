"""Lines that are hard to tokenize, the same for the same seed: used by make_tokenizer.py and tests/long/tokenizer.py."""
import random

SURROGATES = range(0xD800, 0xE000)
MARKS = [c for a, b in ((0x300, 0x36F), (0x483, 0x489), (0x591, 0x5C7), (0x610, 0x61A), (0x64B, 0x65F), (0x6D6, 0x6ED),
                        (0x730, 0x74A), (0x8D3, 0x903), (0x93A, 0x957), (0x9BC, 0x9CD), (0xD3B, 0xD4D), (0xE38, 0xE4D),
                        (0xEB8, 0xECD), (0xF18, 0xF19), (0xF71, 0xF87), (0x1037, 0x103A), (0x135D, 0x135F),
                        (0x1A55, 0x1AC0), (0x1B34, 0x1B44), (0x1DC0, 0x1DFF), (0x20D0, 0x20F0), (0x302A, 0x302F),
                        (0x3099, 0x309A), (0xA66F, 0xA67D), (0xA8E0, 0xA8F1), (0xFE20, 0xFE2F), (0x101FD, 0x101FD),
                        (0x10A0D, 0x10A3F), (0x110B9, 0x110BA), (0x11938, 0x1193E), (0x16FF0, 0x16FF1),
                        (0x1D165, 0x1D172), (0x1D17B, 0x1D18B), (0x1E000, 0x1E02A), (0x1E8D0, 0x1E8D6),
                        (0x1E944, 0x1E94A)) for c in range(a, b + 1)]
SPACES = "\t\n\v\f\r \x1c\x1d\x1e\x1f\x85\xa0\u1680\u180e\u2000\u2003\u200a\u200b\u2028\u2029\u202f\u205f\u2060\u3000\ufeff"
CONTROLS = ("\x00\x01\x07\x08\x0b\x1b\x7f\x80\x84\x9f\xad\u0600\u061c\u070f\u200c\u200d\u200e\u202a\u202e\u2066\ufff9"
            "\ufffc\ufffd\ufffe\uffff\ue000\uf8ff\U000e0001\U000e0041\U000f0000\U0010fffd\U0010ffff\u0378\u0ff0\U0001ffff")
CASES = ("\u0130\u0131\u00df\u1e9e\u03a3\u03c3\u03c2\u0149\u01c4\u01c5\u01c6\u01f0\u0390\u03b0\u1f80\u1fb3\u1fbc\u1ffc"
         "\u212a\u212b\u2126\u10a0\u10d0\u1c90\u13a0\uab70\u2c2f\ua7cb\U00010400\U0001e900\U00016e40\u0345\uff21\u24b6")
CJK = ("\u4e00\u9fff\u3400\u4dbf\U00020000\U0002a6df\U0002a6e0\U0002a700\U0002b73f\U0002b740\U0002b81f\U0002b820"
       "\U0002b91f\U0002b920\U0002ceaf\U0002ceb0\uf900\ufaff\U0002f800\U0002fa1f\u3042\u30a2\u30ac\uac00\ud7a3\u1100"
       "\u1161\u11a8\u3131\u3007\u3021\uff66\uff9e\u9ffd\U00030000\u2e80\u2f00")
PUNCT = ("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~\xa1\xa7\xab\xb6\xb7\xbb\xbf\u037e\u2010\u2013\u2014\u2018\u2019\u201c\u201d"
         "\u2026\u2030\u203b\u20ac\u3001\u3002\u300c\u300d\uff01\uff5e\u2e52\U00010100\U0001e95e\u2212\xac\xb4\u060c")
EMOJI = ["\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f44d\U0001f3fd", "\u2764\ufe0f", "\U0001f1e9\U0001f1ea",
         "1\ufe0f\u20e3", "\U0001f3f4\U000e0067\U000e0062\U000e007f", "\U0001fae0", "\U0001f642\u200d\u2194\ufe0f"]
SPECIALS = ["[CLS]", "[SEP]", "[MASK]", "[PAD]", "[UNK]", "[cls]", "[CLS", "CLS]", "[ MASK ]", "[[MASK]]", "[MASK][MASK]",
            "[M\u0041SK]", "[\u0301MASK]"]
WORDS = ("the The THE of and running unaffable internationalization don't can't it's he'll re-use e-mail 3.14 1,000,000 "
         "U.S.A. caf\u00e9 cafe\u0301 na\u00efve \u00c5ngstr\u00f6m \u0395\u03bb\u03bb\u03ac\u03b4\u03b1 \u039f\u0394\u03a5\u03a3\u03a3\u0395\u03a5\u03a3 "
         "\u041f\u0440\u0438\u0432\u0435\u0442 \u0439\u0451\u0436 \u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u0639\u064e\u0631\u064e\u0628\u0650\u064a "
         "\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd \u0939\u093f\u0928\u094d\u0926\u0940 \u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22 "
         "\ud55c\uad6d\uc5b4 \u65e5\u672c\u8a9e \u30ab\u3099 \u304c Ti\u1ebfng Vi\u1ec7t \u0130stanbul \u1e9eTRASSE ##ing "
         "#hashtag @user http://a.b/c?d=e&f=g \\n \\u0041 x_y__z a\u0327\u0301 a\u0301\u0327 o\u0308\u0304 \u1e69 s\u0323\u0307 s\u0307\u0323").split(" ")


def point(r, low=0, high=0x110000):
    while True:
        c = r.randrange(low, high)
        if c not in SURROGATES:
            return chr(c)


def word(r):
    kind = r.randrange(14)
    if kind <= 3:
        return r.choice(WORDS)
    if kind == 4:
        return "".join(r.choice("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
                       for _ in range(r.choice((1, 2, 3, 5, 8, 13, 99, 100, 101, 130))))
    if kind == 5:  # marks in a row, in any order
        return "".join(r.choice("aeoAEO\u0391\u0438\uac00\u4e00 ") + "".join(chr(r.choice(MARKS)) for _ in range(r.randrange(9)))
                       for _ in range(r.randrange(1, 4)))
    if kind == 6:  # one block
        block = r.randrange(0, 0x1100) << 8
        if block in SURROGATES:
            block = 0
        return "".join(point(r, block, block + 256) for _ in range(r.randrange(1, 6)))
    if kind == 7:  # the blocks that are in use
        return "".join(point(r, 0x80, r.choice((0x250, 0x600, 0x3000, 0x10000, 0x20000))) for _ in range(r.randrange(1, 6)))
    if kind == 8:
        return r.choice(EMOJI) * r.randrange(1, 3)
    if kind == 9:
        return r.choice(SPECIALS)
    pool = (SPACES, CONTROLS, CASES, CJK)[kind - 10]
    return "".join(r.choice(pool + r.choice((PUNCT, "abc", CASES))) for _ in range(r.randrange(1, 6)))


def line(r):
    n = r.choice((0, 1, 1, 2, 3, 5, 8, 13))
    return "".join(word(r) + r.choice((" ", " ", " ", "", "", r.choice(SPACES), r.choice(PUNCT), r.choice(CONTROLS)))
                   for _ in range(n))


def every_block():
    """Each code point that is no surrogate, in order, 64 a line between letters."""
    for begin in range(0, 0x110000, 64):
        if begin not in SURROGATES:
            yield " ".join("a" + chr(c) + "b" + chr(c) for c in range(begin, begin + 64))


def lines(count, seed=0):
    r = random.Random(seed)
    fixed = ["", " ", "\u00a0", "a" * 100, "a" * 101, "\u00e9" * 100, "\u00e9" * 101, "e\u0301" * 100, "e\u0301" * 101,
             "\u4e00" * 200, "[MASK]" * 3, "a" * 99 + "\u0130", "\u0301", "\u0301\u0301a"] + WORDS + SPECIALS + EMOJI
    for i in range(count):
        yield fixed[i] if i < len(fixed) else line(r)
