"""YAML of strangers: what it says, or `yaml.YAMLError` whatever is wrong with it. Ours."""

from typing import Any

import yaml


def read_yaml(text: str, loader: type[yaml.SafeLoader] = yaml.SafeLoader) -> Any:
    """What one YAML document holds. Raises yaml.YAMLError for everything that is none.

    PyYAML itself ends in other errors where a plain word looks like a value and is none (the day 2027-13-45, an explicit
    `!!int ""`), and in RecursionError where brackets are nested thousands deep.
    """
    made = None
    try:
        made = loader(text)
        return made.get_single_data()
    except yaml.YAMLError:
        raise
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deeply") from error
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise yaml.YAMLError(f"a value is not what its form says: {error}") from error
    finally:
        if made is not None:
            made.dispose()
