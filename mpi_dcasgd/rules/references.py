"""Papers that the rule parts come from: what a report cites, and CITATION.cff repeats."""

from __future__ import annotations

from typing import NamedTuple


class Reference(NamedTuple):
    """A paper.

    Attributes:
        authors: Given name before family name.
        title: Without a full stop.
        venue: Conference or journal; empty for a preprint.
        year: Of publication.
        arxiv: Identifier there; empty if there is none.
    """

    authors: tuple[str, ...]
    title: str
    venue: str
    year: int
    arxiv: str = ""

    def __str__(self) -> str:
        """The paper as a line of a list of references.

        Example:
            >>> str(Reference(("A. Author", "B. Writer"), "On Delay", "ICML", 2030, "3001.00001"))
            'A. Author, B. Writer. On Delay. ICML, 2030. arXiv:3001.00001.'
        """
        ending = "" if self.title.endswith("?") else "."
        where = f"{self.venue}, {self.year}." if self.venue else f"{self.year}."
        arxiv = f" arXiv:{self.arxiv}." if self.arxiv else ""
        return f"{', '.join(self.authors)}. {self.title}{ending} {where}{arxiv}"


BARKAI_2020 = Reference(
    ("Saar Barkai", "Ido Hakimi", "Assaf Schuster"),
    "Gap-Aware Mitigation of Gradient Staleness",
    "ICLR",
    2020,
    "1909.10802",
)
GILADI_2020 = Reference(
    ("Niv Giladi", "Mor Shpigel Nacson", "Elad Hoffer", "Daniel Soudry"),
    "At Stability's Edge: How to Adjust Hyperparameters to Preserve Minima Selection in "
    "Asynchronous Training of Neural Networks?",
    "ICLR",
    2020,
    "1909.12340",
)
HAKIMI_2019 = Reference(
    ("Ido Hakimi", "Saar Barkai", "Moshe Gabel", "Assaf Schuster"),
    "Taming Momentum in a Distributed Asynchronous Environment",
    "",
    2019,
    "1907.11612",
)
HO_2013 = Reference(
    (
        "Qirong Ho",
        "James Cipar",
        "Henggang Cui",
        "Seunghak Lee",
        "Jin Kyu Kim",
        "Phillip B. Gibbons",
        "Garth A. Gibson",
        "Gregory R. Ganger",
        "Eric P. Xing",
    ),
    "More Effective Distributed ML via a Stale Synchronous Parallel Parameter Server",
    "NeurIPS",
    2013,
)
KINGMA_2015 = Reference(
    ("Diederik P. Kingma", "Jimmy Ba"),
    "Adam: A Method for Stochastic Optimization",
    "ICLR",
    2015,
    "1412.6980",
)
KOLOSKOVA_2022 = Reference(
    ("Anastasia Koloskova", "Sebastian U. Stich", "Martin Jaggi"),
    "Sharper Convergence Guarantees for Asynchronous SGD for Distributed and Federated Learning",
    "NeurIPS",
    2022,
    "2206.08307",
)
LOSHCHILOV_2019 = Reference(
    ("Ilya Loshchilov", "Frank Hutter"),
    "Decoupled Weight Decay Regularization",
    "ICLR",
    2019,
    "1711.05101",
)
MARANJYAN_2025 = Reference(
    ("Artavazd Maranjyan", "Alexander Tyurin", "Peter Richtárik"),
    "Ringmaster ASGD: The First Asynchronous SGD with Optimal Time Complexity",
    "ICML",
    2025,
    "2501.16168",
)
MISHCHENKO_2022 = Reference(
    ("Konstantin Mishchenko", "Francis Bach", "Mathieu Even", "Blake Woodworth"),
    "Asynchronous SGD Beats Minibatch SGD Under Arbitrary Delays",
    "NeurIPS",
    2022,
    "2206.07638",
)
PASCANU_2013 = Reference(
    ("Razvan Pascanu", "Tomas Mikolov", "Yoshua Bengio"),
    "On the Difficulty of Training Recurrent Neural Networks",
    "ICML",
    2013,
    "1211.5063",
)
POLYAK_1964 = Reference(
    ("Boris T. Polyak",),
    "Some Methods of Speeding up the Convergence of Iteration Methods",
    "USSR Computational Mathematics and Mathematical Physics 4(5)",
    1964,
)
SUTSKEVER_2013 = Reference(
    ("Ilya Sutskever", "James Martens", "George Dahl", "Geoffrey Hinton"),
    "On the Importance of Initialization and Momentum in Deep Learning",
    "ICML",
    2013,
)
TYURIN_2023 = Reference(
    ("Alexander Tyurin", "Peter Richtárik"),
    "Optimal Time Complexities of Parallel Stochastic Optimization Methods Under a Fixed "
    "Computation Model",
    "NeurIPS",
    2023,
    "2305.12387",
)
ZHANG_2016 = Reference(
    ("Wei Zhang", "Suyog Gupta", "Xiangru Lian", "Ji Liu"),
    "Staleness-aware Async-SGD for Distributed Deep Learning",
    "IJCAI",
    2016,
    "1511.05950",
)
ZHENG_2017 = Reference(
    (
        "Shuxin Zheng",
        "Qi Meng",
        "Taifeng Wang",
        "Wei Chen",
        "Nenghai Yu",
        "Zhi-Ming Ma",
        "Tie-Yan Liu",
    ),
    "Asynchronous Stochastic Gradient Descent with Delay Compensation",
    "ICML",
    2017,
    "1609.08326",
)
