"""The little cleaning that every text gets: one newline, no invisible characters."""

from __future__ import annotations

import re

# \r\n, \r, and the separators that str.splitlines takes for line ends as well.
_NEWLINES = re.compile("\r\n|[\r\x85\u2028\u2029]")
# Control characters other than tab and newline, byte order marks, and lone surrogates (which have
# no UTF-8 form).
_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\ud800-\udfff]")


def clean(text: str) -> str:
    r"""Give every line end the form ``\n`` and drop control characters except tab.

    Letters are left alone: no Unicode normalisation, no change of case or blanks. Applied twice it
    changes nothing more.

    Parameters
    ----------
    text : str
        Any text.

    Returns
    -------
    str
        Text that encodes to UTF-8.

    Examples
    --------
    >>> clean("\ufeffone\r\ntwo\rthree\x00\tnaïve")
    'one\ntwo\nthree\tnaïve'
    """
    return _INVISIBLE.sub("", _NEWLINES.sub("\n", text))
