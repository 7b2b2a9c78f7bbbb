"""How a personal phase draws a Nova's insights together."""

from __future__ import annotations

from novawf.completion.consolidation import Summary, consolidate


def insight(**fields: str) -> dict[str, str]:
    return {"type": "reflection", "task_id": "T-1", "signs": "first_attempt", **fields}


def test_what_came_up_most_often_comes_first():
    insights = [
        insight(skill="command make in 2 s"),
        insight(skill="command make in 9 min", signs="retried,slower", improvements="a; b"),
        insight(skill="python a:b", signs="retried", improvements="b"),
    ]
    assert consolidate(insights) == Summary(
        reflections=3,
        signs="retried 2; first_attempt 1; slower 1",
        skills="command make 2; python a:b 1",
        improvements="b 2; a 1",
    )


def test_only_reflections_count():
    assert consolidate([{"type": "personal", "signs": "retried 2"}, {}]) == Summary(0, "", "", "")


def test_a_summary_stays_short():
    summary = consolidate(insight(skill=f"command c{n}", improvements=f"i{n}") for n in range(100))
    assert summary.reflections == 100
    assert summary.skills.count(";") == summary.improvements.count(";") == 4
