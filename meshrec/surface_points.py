"""Named points of the body's surface: the vertex ids that every SMPL tool uses.

They belong to SMPL's interface, as the order of its 24 joints does: a tool that wants the nose reads vertex 332. They
hold for every body with SMPL's 6,890 vertices; the shipped body numbers its vertices so that they hold for it too.
"""

SURFACE_POINTS: dict[str, int] = {
    "head_top": 411,
    "nose": 332,
    "left_eye": 2800,
    "right_eye": 6260,
    "left_ear": 583,
    "right_ear": 4071,
    "left_thumb": 2746,
    "left_index": 2319,
    "left_middle": 2445,
    "left_ring": 2556,
    "left_pinky": 2673,
    "right_thumb": 6191,
    "right_index": 5782,
    "right_middle": 5905,
    "right_ring": 6016,
    "right_pinky": 6133,
    "left_big_toe": 3216,
    "left_small_toe": 3226,
    "left_heel": 3387,
    "right_big_toe": 6617,
    "right_small_toe": 6624,
    "right_heel": 6787,
}
"""Vertex of each point; left and right are the person's own, fingers are their tips."""
