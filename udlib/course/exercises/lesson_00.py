"""Checks of lesson 00."""

from udlib.course.exercises import called, exercise


@exercise("00.1")
def predicted_labels(function) -> str | None:
    case = {"boat": 0.9, "bird": 0.5, "car": 0.1, "fish": 0.7}
    answer = called(function, case, 0.5)
    if not isinstance(answer, (set, frozenset)) or not all(isinstance(name, str) for name in answer):
        return "the answer should be a set of names, for example {'boat', 'bird'}."
    if answer == {"boat"}:
        return "you return the single most probable class, but here every class gets its own yes or no."
    if answer == {"boat", "fish"}:
        return 'a class exactly at the threshold belongs to the answer: "at least" means >=, not >.'
    if answer != {"boat", "fish", "bird"}:
        return f"for {case} and threshold 0.5 you return {sorted(answer)}: keep the names with a probability >= 0.5."
    if called(function, case, 0.8) != {"boat"}:
        return "it is right at 0.5 but not at 0.8: use the argument threshold, not the number 0.5."
    return None
