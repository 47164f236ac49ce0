"""docs/reliability.md and the tests agree, and every planted defect still fits the code."""

import planted
import pytest
from fault_table import FAULTS, REPOSITORY, cell, listed_tests, marked_tests


@pytest.mark.parametrize("fault", FAULTS)
def test_the_page_names_the_tests_of_a_fault(fault: int) -> None:
    tests = marked_tests()[fault]
    assert tests, f"fault {fault} has no test"
    assert listed_tests()[fault] == cell(tests), "run python tests/fault_table.py"


@pytest.mark.parametrize("name", sorted(planted.NAMES.values()))
def test_a_planted_defect_fits_the_code_and_is_named_by_a_test(name: str) -> None:
    defect = getattr(planted, name)
    text = (REPOSITORY / defect.file).read_text(encoding="utf-8")
    assert text.count(defect.right) == 1, f"{defect.file} has changed: update tests/planted.py"
    assert name in {used for tests in marked_tests().values() for _, _, used in tests}
