"""FitCLIP's share of the student and this project's share of CLIP: one thing from two ends."""

from training.errors import Refusal


def clip_weight_of(student_share: float) -> float:
    """λ for FitCLIP's α: θ = (1 - α) CLIP + α student.

    Its published model has α = 0.4, of the student: λ = 0.6. The logit scale is no part of the
    ensemble; the student's is CLIP's own. Raises Refusal for a share outside 0 to 1.
    """
    if not 0.0 <= student_share <= 1.0:
        raise Refusal(f"student_share = {student_share}: within 0 and 1")
    return round(1.0 - student_share, 12)
