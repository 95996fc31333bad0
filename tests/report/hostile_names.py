"""Names that a network may carry to break a picture, a page or a terminal."""

HOSTILE_NAMES = (
    "<script>alert(1)</script>",
    "</title></svg></style></script><script>alert(2)</script>",
    "<<b>bold</b>>",
    "<img src=x onerror=alert(3)>",
    'quote" onload="alert(4)" \'x\'',
    "]]><!-- --!> <![CDATA[ x",
    "back\\slash \\N \\G \\l \\",
    "line\nbreak\r\ttab",
    "&amp; &lt;b&gt; &nosuch; &#0; &#x1b;",
    "n" * 20_000,
    "control \x00\x01\x1b[31m\x7f\x85 \u202eevil\u2066 \ufeff \ud800 \U000e0001 \uffff",
    "[bold red]markup[/] [link=file:///x]y[/link]",
    "{{ 7 * 7 }} {% raw %}",
    "",
    "日本語 🚀 " * 40,
)
