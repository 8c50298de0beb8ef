"""Rows of the schema of the published sets, and where the published data lies."""

from __future__ import annotations

from pathlib import Path

SHARED = Path(__file__).parents[3] / "shared" / "data"

PAGE = (
    "Jamaica is an island country. It lies in the Caribbean Sea.\n\nIts capital and largest city is Kingston, on the south coast. "
    "Kingston was founded in 1692. It has half a million inhabitants! More follows here."
)
ROWS = {
    "triviaqa": {
        "question": "Which is the capital of Jamaica?",
        "question_id": "qz_1",
        "question_source": "http://www.example.org/",
        "entity_pages": {"doc_source": ["TagMe"], "filename": ["Jamaica.txt"], "title": ["Jamaica"], "wiki_context": ["Nothing.", PAGE]},
        "answer": {
            "aliases": ["Kingston, Jamaica", "A", "Kingston", "kingston"],
            "normalized_aliases": ["kingston jamaica", "kingston"],
            "matched_wiki_entity_name": "",
            "normalized_matched_wiki_entity_name": "",
            "normalized_value": "kingston",
            "type": "WikipediaEntity",
            "value": "Kingston",
        },
    },
    "popqa": {
        "id": 4222362, "subj": "George Rankin", "prop": "occupation", "obj": "politician", "s_pop": 142, "o_pop": 25692,
        "question": "What is George Rankin's occupation?", "possible_answers": '["politician", "political leader", "pol"]',
    },
    "counterfact": {
        "case_id": 7, "pararel_idx": 1,
        "requested_rewrite": {
            "prompt": "The mother tongue of {} is", "relation_id": "P103", "subject": "Danielle Darrieux",
            "target_new": {"str": "English", "id": "Q1860"}, "target_true": {"str": "French", "id": "Q150"},
        },
        "paraphrase_prompts": [], "neighborhood_prompts": [], "attribute_prompts": [], "generation_prompts": [],
    },
    "nq_open": {"question": "when was the last time anyone was on the moon", "answer": ["14 December 1972 UTC", "December 1972"]},
    "webqs": {"url": "http://www.freebase.com/view/en/jamaica", "question": "what does jamaican people speak?", "answers": ["English"]},
}  # fmt: skip
