"""A drawing of the page: fewer bytes, and the same to see."""

from __future__ import annotations

import re

from harness.report.page.drawings import small

DRAWN = """<svg xmlns="http://www.w3.org/2000/svg" class="figure" viewBox="0 0 495 180" aria-labelledby="p:x-title">
 <title id="p:x-title">A &lt;b&gt; title</title>
 <defs><path id="p:x-m1" d="M 0 3  L 3 0" style="stroke: #0072b2"/><clipPath id="p:x-c"><rect x="1.23456" y="2"
  width="3.0" height="4"/></clipPath></defs>
 <g id="p:x-axes_1">
  <g id="p:x-line2d_1"><path d="M 31.083045 128.462345  L 35.572045 144.593259 " clip-path="url(#p:x-c)"
   style="fill: none; stroke: var(--figure-1, #0072b2)"/></g>
  <g clip-path="url(#p:x-c)"><use href="#p:x-m1" x="269.837643" y="0.123456"/></g>
  <path d="M 218.605608 521.526227  " style="fill: none"/>
  <g clip-path="url(#p:x-c)"/>
  <text transform="translate(12.34567 9.87654) scale(0.123456 -0.1)" style="fill: currentColor"> two  words</text>
 </g>
</svg>"""


def test_colours_words_and_what_is_referred_to_stay() -> None:
    text = small(DRAWN, "p:x")
    assert "stroke:var(--figure-1, #0072b2)" in text
    assert "> two  words</text>" in text
    assert "A &lt;b&gt; title</title>" in text
    ids = set(re.findall(r' id="([^"]+)"', text))
    assert all(name.startswith("p:x-") for name in ids)
    referred = re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"|labelledby="([^"]+)"', text)
    assert {name for names in referred for name in names if name} == ids
    assert len(ids) == 3
    assert text.startswith("<svg ")  # no prefix, which HTML does not know


def test_what_is_not_seen_is_left_out() -> None:
    text = small(DRAWN, "p:x")
    assert len(text) < 0.75 * len(DRAWN)
    assert "axes_1" not in text
    assert "521.5" not in text  # a path that only begins
    assert text.count("<g") == 1  # the one that clips
    assert "\n" not in text


def test_numbers_are_short_and_factors_exact() -> None:
    text = small(DRAWN, "p:x")
    assert 'd="M 31.08 128.46 L 35.57 144.59"' in text
    assert 'x="269.84" y="0.123456"' in text
    assert 'transform="translate(12.35 9.88) scale(0.123456 -0.1)"' in text
    assert 'x="1.23" y="2" width="3" height="4"' in text


def test_a_small_drawing_stays_as_it_is() -> None:
    once = small(DRAWN, "p:x")
    assert small(once, "p:x") == once
