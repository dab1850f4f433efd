"""Texts that a hostile or broken target could send, for whatever shows them."""

from __future__ import annotations

TEXTS = (
    "<script>window.hurt = 1</script>",
    "</script><script>window.hurt = 1</script>",
    "<!--<script>",
    "\"><img src=x onerror='window.hurt=1'>",
    "'; window.hurt = 1; //",
    "{{ 7 * 7 }} {% raw %} ${7*7}",
    "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x1b[2J\x9b31m",
    "a\x00b\x08\x7f\u202eevil\u2066\ufeff",
    "line\u2028separator\u2029 ]]> &amp; \ufffe",
    "[bold red]markup[/] [/nonsense] :smile:",
    "| a | `code` [link](javascript:window.hurt=1) <b>",
    "é漢字🔥" * 30,
    "x" * 5000,
)
