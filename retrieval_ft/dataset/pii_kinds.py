"""What personal data looks like: patterns that propose, and checks that decide.

A pattern alone takes part numbers for phone numbers, so each kind has a check: check digits (Luhn,
mod 97 and those of python-stdnum), the numbering plans of phonenumbers, ipaddress. Numbers whose
check digits are weak count only beside a word that names them.
"""

from __future__ import annotations

import importlib
import ipaddress
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal

from retrieval_ft.errors import ConfigError

Kind = Literal["email", "iban", "card", "ip", "national_id", "phone"]
Spans = Iterator[tuple[int, int]]
_ORDER: tuple[Kind, ...] = ("iban", "card", "national_id", "phone")

# Digits and signs of other scripts as their ASCII twins, one character for one.
_TWINS = {
    **{zero + digit: str(digit) for zero in (0x660, 0x6F0, 0x966, 0xFF10) for digit in range(10)},
    **dict.fromkeys([*range(0x2010, 0x2016), 0x2212, 0xFE63, 0xFF0D], "-"),
    **dict.fromkeys([0xA0, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000], " "),
    **{0xFF20: "@", 0xFF0B: "+", 0xFF08: "(", 0xFF09: ")", 0xFF0E: ".", 0xFF1A: ":"},
}
_TWIN = re.compile(f"[{''.join(map(chr, sorted(_TWINS)))}]")

_WORTH_A_LOOK = re.compile(r"@|[0-9][0-9.]")
_EMAIL = re.compile(
    r"(?<![\w.%+-])[\w.%+-]{1,64}@(?![0-9]x\.)"  # icon@2x.png is a picture
    r"(?:[\w-]{1,63}\.)+(?:xn--[a-z0-9-]{2,59}|[^\W\d_]{2,24})(?![\w@])"
)
_IP4 = re.compile(r"[0-9][0-9]{0,2}(?:\.[0-9]{1,3}){3}(?!\w|\.[0-9])")
_NUMBERED = re.compile(
    r"(?:\b(?:v|ver|version|release|firmware|build|section|chapter|clause|table|figure|EC)|\u00a7)"
    r"[.:]?\s*\Z",
    re.IGNORECASE,
)
_IP6 = re.compile(
    r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}"
    r"(?:(?:[0-9]{1,3}\.){3}[0-9]{1,3}|[0-9A-Fa-f]{1,4}|)(?![\w:])"
)
# Numbers begin at six digits that hang together or at two behind two letters, and nowhere else.
_PLACE = re.compile(r"[0-9](?:(?:[ ./()-]{0,2}[0-9]){5,}|[0-9](?<=[A-Za-z]{2}[0-9]{2}))")
_BEFORE, _AFTER = 10, 48  # an IBAN has 34 characters, written with 8 spaces
_HERE, _ENDS = r"(?<!\w)(?<![0-9][.-])", r"(?!\w)(?![.-][0-9])"

_IBAN = re.compile(r"(?<!\w)[A-Za-z]{2}[0-9]{2}(?:[ -]?[A-Za-z0-9]){11,30}")
_CARD = re.compile(
    _HERE + r"(?:[0-9]{13,19}|[0-9]{4}([ -])[0-9]{4}\1[0-9]{4}\1[0-9]{4}(?:\1[0-9]{3})?"
    r"|[0-9]{4}([ -])[0-9]{6}\2[0-9]{4,5})" + _ENDS
)
# Issuers and their lengths (ISO/IEC 7812): Visa, Mastercard, American Express, Diners, Discover,
# UnionPay, JCB, Maestro.
_ISSUED = re.compile(
    r"4(?:[0-9]{12}|[0-9]{15}|[0-9]{18})|5[1-5][0-9]{14}"
    r"|2(?:22[1-9]|2[3-9][0-9]|[3-6][0-9]{2}|7[01][0-9]|720)[0-9]{12}|3[47][0-9]{13}"
    r"|3(?:0[0-5]|[68][0-9])[0-9]{11}|6(?:011|4[4-9][0-9]|5[0-9]{2})[0-9]{12,15}"
    r"|62[0-9]{14,17}|35(?:2[89]|[3-8][0-9])[0-9]{12,15}|(?:5[06-8]|6[37])[0-9]{14,17}"
)

_PHONE_HERE, _PHONE_ENDS = r"(?<![\w+])(?<!\w[.-])", r"(?!\w)(?![.,:/-][0-9])"
_WORLD = re.compile(_PHONE_HERE + r"(?:\+|00)[1-9](?:[ ./()-]{0,3}[0-9]){6,16}(?!\w)")
_NANP = re.compile(
    _PHONE_HERE + r"(?:1[ .-])?(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}([ .-]))"
    r"[2-9][0-9]{2}(?(1)\1|[ .-])[0-9]{4}" + _PHONE_ENDS
)
_TRUNK = re.compile(
    _PHONE_HERE + r"(?:0[1-9](?P<s>[ .-])[0-9]{2}(?:(?P=s)[0-9]{2}){3}"
    r"|(?:\(0[0-9]{2,5}\) ?|0[0-9]{2,5}(?: ?[/-] ?| ))[0-9]{2,9}(?:[ -][0-9]{2,8}){0,3})"
    + _PHONE_ENDS
)
_OTHER = re.compile(_PHONE_HERE + r"[0-9]{1,4}(?:[ -][0-9]{2,4}){2,4}" + _PHONE_ENDS)
_PUBLISHED = re.compile(r"\b(?:ISBN|ISSN|DOI|EAN|GTIN)\b[^\n]{0,12}\Z", re.IGNORECASE)


@dataclass(frozen=True)
class _Window:
    """Part of a text where a number may be: text[low:high], with `digits` that hang together."""

    text: str
    low: int
    high: int
    digits: int

    def matches(self, pattern: re.Pattern[str]) -> Iterator[re.Match[str]]:
        """Matches in the window but for one that its end may have cut."""
        for match in pattern.finditer(self.text, self.low, self.high):
            if match.end() < self.high or self.high == len(self.text):
                yield match


@dataclass(frozen=True)
class _Identity:
    """A national number: what it looks like, the stdnum modules that check it, and its name."""

    digits: int
    """Digits that hang together in it, at least."""
    pattern: re.Pattern[str]
    modules: tuple[str, ...]
    near: re.Pattern[str] | None
    """A word that must stand near; None where format and check digits are enough."""


def _identity(digits: int, pattern: str, *modules: str, near: str | None = None) -> _Identity:
    return _Identity(
        digits,
        re.compile(_HERE + f"(?:{pattern})" + _ENDS),
        modules,
        re.compile(rf"(?<![^\W_])(?:{near})(?![^\W_])") if near else None,
    )


_IDENTITIES = (
    _identity(9, "[0-9]{3}-[0-9]{2}-[0-9]{4}", "us.ssn", "us.itin"),
    _identity(9, "[0-9]{3} ?[0-9]{2} ?[0-9]{4}", "us.ssn", near="SSN|(?i:social security)"),
    _identity(9, "[0-9]{3}[ -]?[0-9]{3}[ -]?[0-9]{3}", "ca.sin", near="SIN|(?i:social insurance)"),
    _identity(10, "[0-9]{3}[ -]?[0-9]{3}[ -]?[0-9]{4}", "gb.nhs", near="(?i:nhs)"),
    _identity(
        2,
        "[A-CEGHJ-PR-TW-Z]{2} ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-D]",
        near="(?i:nino|national insurance)",
    ),
    _identity(
        6, "[1-478](?: ?[0-9]{2}){2} ?(?:[0-9]{2}|2[AB])(?: ?[0-9]{3}){2} ?[0-9]{2}", "fr.nir"
    ),
    _identity(8, "[0-9]{8}-?[A-Z]", "es.dni"),
    _identity(7, "[XYZ]-?[0-9]{7}-?[A-Z]", "es.nie"),
    _identity(2, "[A-Z]{6}[0-9]{2}[A-EHLMPRST][0-9]{2}[A-Z][0-9]{3}[A-Z]", "it.codicefiscale"),
    _identity(11, "[0-9]{2} [0-9]{3} [0-9]{3} [0-9]{3}", "de.idnr"),
    _identity(
        11, "[0-9]{11}", "de.idnr", near="(?i:steuer[- ]?id(?:nr|entifikationsnummer)?|idnr)"
    ),
    _identity(
        9, r"[0-9]{9}|[0-9]{4}\.[0-9]{2}\.[0-9]{3}", "nl.bsn", near="(?i:bsn|burgerservicenummer)"
    ),
    _identity(11, r"[0-9]{2}\.[0-9]{2}\.[0-9]{2}-[0-9]{3}\.[0-9]{2}", "be.nn"),
    _identity(13, r"756\.[0-9]{4}\.[0-9]{4}\.[0-9]{2}", "ch.ssn"),
    _identity(10, "[0-9]{6}[+-]?[0-9]{4}", "se.personnummer", near="(?i:personnummer)"),
    _identity(11, "[0-9]{6} ?[0-9]{5}", "no.fodselsnummer"),
    _identity(6, "[0-9]{6}[A+-][0-9]{3}[0-9A-Y]", "fi.hetu"),
    _identity(11, "[0-9]{11}", "pl.pesel", near="(?i:pesel)"),
    _identity(10, "[0-9]{6}/[0-9]{4}", "cz.rc"),
    _identity(7, "[0-9]{7}[A-W][A-W]?", "ie.pps", near="(?i:ppsn?)"),
    _identity(11, r"[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}", "br.cpf"),
    _identity(2, "[A-Z]{4}[0-9]{6}[HM][A-Z]{5}[0-9A-Z][0-9]", "mx.curp"),
    _identity(17, "[0-9]{17}[0-9Xx]", "cn.ric"),
    _identity(13, "[0-9]{6}-[1-8][0-9]{6}", "kr.rrn"),
    _identity(12, "[0-9]{4} ?[0-9]{4} ?[0-9]{4}", "in_.aadhaar", near="(?i:aadhaar)"),
    _identity(9, "[0-9]{3} ?[0-9]{3} ?[0-9]{3}", "au.tfn", near="TFN|(?i:tax file)"),
)


def spans(text: str, regions: tuple[str, ...]) -> list[tuple[int, int, Kind]]:
    """Personal data in a text: (start, end, kind), sorted and apart; the surer kind wins a place.

    Raises:
        ConfigError: a region is none that phonenumbers knows.
    """
    if not text.isascii() and _TWIN.search(text):
        text = text.translate(_TWINS)
    if not _WORTH_A_LOOK.search(text):
        return []
    proposed: list[tuple[int, int, Kind]] = []
    if "@" in text:
        proposed += [(*match.span(), "email") for match in _EMAIL.finditer(text)]
    proposed += [(start, end, "ip") for start, end in _addresses(text)]
    numbers = _numbers(text, regions)
    proposed += sorted(numbers, key=lambda found: (_ORDER.index(found[2]), found[0], -found[1]))
    chosen: list[tuple[int, int, Kind]] = []
    for start, end, kind in proposed:
        place = bisect_left(chosen, start, key=lambda one: one[0])
        free_before = place == 0 or chosen[place - 1][1] <= start
        if free_before and (place == len(chosen) or chosen[place][0] >= end):
            chosen.insert(place, (start, end, kind))
    return chosen


def _addresses(text: str) -> Spans:
    if "::" in text or text.count(":") >= 7:
        for match in _IP6.finditer(text):
            # Public and private ones begin with four digits; a::b is a name in a program.
            if re.match("[0-9A-Fa-f]{4}:", match[0]) and re.search("[0-9]", match[0]):
                yield from _if_address(match)
    for match in _IP4.finditer(text):
        before = text[max(match.start() - 20, 0) : match.start()]
        if not re.search(r"[\w.]\Z", before) and not _NUMBERED.search(before):
            yield from _if_address(match)


def _if_address(match: re.Match[str]) -> Spans:
    try:
        address = ipaddress.ip_address(match[0])
    except ValueError:
        return
    if not (address.is_loopback or address.is_unspecified):  # these name no machine
        yield match.span()


def _numbers(text: str, regions: tuple[str, ...]) -> set[tuple[int, int, Kind]]:
    """Everything with digits, looked for around each place where there are enough of them."""
    found: set[tuple[int, int, Kind]] = set()
    for place in _PLACE.finditer(text):
        low, high = max(place.start() - _BEFORE, 0), min(place.end() + _AFTER, len(text))
        window = _Window(text, low, high, sum(map(str.isdigit, place[0])))
        found.update((start, end, "iban") for start, end in _ibans(window))
        found.update((start, end, "card") for start, end in _cards(window))
        found.update((start, end, "national_id") for start, end in _identities(window))
        found.update((start, end, "phone") for start, end in _phones(window, regions))
    return found


def _ibans(window: _Window) -> Spans:
    text = window.text
    for match in _IBAN.finditer(text, window.low, window.high):
        ends = [match.start() + i + 1 for i, c in enumerate(match[0]) if c.isalnum()]
        for end in ends[14:]:
            if not text[end : end + 1].isalnum() and _valid("iban", text[match.start() : end]):
                yield match.start(), end
                break


def _cards(window: _Window) -> Spans:
    if window.digits < 13:
        return
    for match in window.matches(_CARD):
        digits = re.sub("[ -]", "", match[0])
        if _ISSUED.fullmatch(digits) and _valid("luhn", digits):
            yield match.span()


def _identities(window: _Window) -> Spans:
    text = window.text
    for identity in _IDENTITIES:
        if identity.digits > window.digits:
            continue
        for match in window.matches(identity.pattern):
            start, end = match.span()
            around = f"{text[max(start - 40, 0) : start]} {text[end : end + 20]}"
            if (identity.near is None or identity.near.search(around)) and (
                not identity.modules or any(_valid(name, match[0]) for name in identity.modules)
            ):
                yield start, end


def _valid(module: str, number: str) -> bool:
    check = _validator(module)
    return check(number) or check(re.sub("[ .-]", "", number))


@cache
def _validator(module: str) -> Callable[[str], bool]:
    found: Callable[[str], bool] = importlib.import_module(f"stdnum.{module}").is_valid
    return found


def _phones(window: _Window, regions: tuple[str, ...]) -> Spans:
    if window.digits < 7:
        return
    for match in window.matches(_WORLD):
        number = re.sub("^00", "+", match[0])
        cut = len(match[0]) - len(number)
        while len(number) >= 7:
            if _dials(number, None):
                yield match.start(), match.start() + len(number) + cut
                break
            number = re.sub("[ ./()-]*[0-9]+$", "", number)  # the last group may be another number
    for pattern, places in _plans(regions):
        for match in window.matches(pattern):
            before = window.text[max(match.start() - 20, 0) : match.start()]
            if not _PUBLISHED.search(before) and any(_dials(match[0], r) for r in places):
                yield match.span()


@cache
def _plans(regions: tuple[str, ...]) -> tuple[tuple[re.Pattern[str], tuple[str, ...]], ...]:
    """How national numbers are written, and the regions that write them so."""
    from phonenumbers import PhoneMetadata

    plans: dict[re.Pattern[str], list[str]] = {}
    for region in regions:
        plan = PhoneMetadata.metadata_for_region(region, None)
        if plan is None:
            raise ConfigError(f"phone region {region!r} is unknown; give ISO codes such as US, DE")
        written = _TRUNK if plan.national_prefix == "0" else _OTHER
        plans.setdefault(_NANP if plan.country_code == 1 else written, []).append(region)
    return tuple((pattern, tuple(places)) for pattern, places in plans.items())


def _dials(number: str, region: str | None) -> bool:
    from phonenumbers import NumberParseException, is_valid_number, parse

    try:
        return is_valid_number(parse(number, region))
    except NumberParseException:
        return False
