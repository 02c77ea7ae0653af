"""A table of strings, such as that of the claims, as LaTeX of a document of one column, where it may fill pages."""

from __future__ import annotations

from detector.storage.shown import one_line
from harness.report.markup import TextTable
from harness.report.typeset.symbols import latex_text


def prose_latex(table: TextTable) -> str:
    """Paragraphs of equal width in a ``longtable``; a table with columns of numbers as a float of the page's width."""
    width = len(table.headings)
    prose = table.num_labels == width
    columns = f"p{{{0.85 / width:.3f}\\textwidth}}" * width if prose else "l" * table.num_labels
    columns += "" if prose else "r" * (width - table.num_labels)
    caption = f"\\caption{{{latex_text(one_line(table.caption))}}}"
    if prose:
        lines = [r"% \usepackage{booktabs,longtable}, in a document of one column"]
        lines += [r"\begingroup\footnotesize\raggedright\setlength{\tabcolsep}{3pt}"]
        lines += [f"\\begin{{longtable}}{{{columns}}}", f"{caption} \\\\", r"\toprule"]
    else:
        lines = [r"\begin{table*}", r"\centering\footnotesize", caption]
        lines += [f"\\begin{{tabular}}{{{columns}}}", r"\toprule"]
    lines += [" & ".join(latex_text(one_line(heading)) for heading in table.headings) + r" \\", r"\midrule"]
    if prose:
        lines.append(r"\endhead")
    for row in table.rows:
        cells = (latex_text(cell).replace("\n", "; ") for cell in row)
        lines.append(" & ".join(f"\\raggedright {cell}" if prose and cell else cell for cell in cells))
        lines[-1] += r" \tabularnewline" if prose else r" \\"
    lines += [r"\bottomrule", r"\end{longtable}" if prose else r"\end{tabular}"]
    lines += [f"\\par\\smallskip\\raggedright {latex_text(one_line(note))}" for note in table.notes]
    return "\n".join([*lines, r"\endgroup" if prose else r"\end{table*}", ""])
