"""A sheet as HTML: every part of it is there, and no cell is read as markup."""

from xml.etree import ElementTree

from analysis.tables.markup import html
from analysis.tables.sheet import Sheet


def test_a_sheet_as_html_holds_all_of_it():
    sheet = Sheet(
        title="Table <one>",
        legend="as it is",
        heading=("name", "a", "b"),
        body=(("x & y", "1", "-"), ("<z>", "2", "3")),
        label="one",
        marks=frozenset({(1, 2)}),
        notes=("a note",),
        spans=(("both", 2),),
        groups={1: "second"},
    )
    page = ElementTree.fromstring(f"<page>{html(sheet)}</page>")
    cells = [["".join(cell.itertext()) for cell in row] for row in page.iter("tr")]
    assert cells == [["", "both"], ["name", "a", "b"], ["x & y", "1", "–"], ["second"], ["<z>", "2", "3"]]
    assert "Table <one>" in "".join(page.find(".//caption").itertext())
    assert [cell.text for cell in page.iterfind(".//td[@class='marked']")] == ["3"]
    assert [row.find("th").text for row in page.iterfind(".//tr[@class='best']")] == ["<z>"]
    assert [item.text for item in page.iterfind(".//li")] == ["a note"]
