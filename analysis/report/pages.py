"""HTML pages from the templates of this package."""

import jinja2


def environment() -> jinja2.Environment:
    """Templates with everything escaped, where a name that is missing is an error."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("analysis.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
