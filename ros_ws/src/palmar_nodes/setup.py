from setuptools import setup

NAME = "palmar_nodes"

setup(
    name=NAME,
    version="0.1.0",
    packages=[NAME],
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    maintainer="Palmar maintainers",
    maintainer_email="maintainers@palmar.dev",
    description="Entry points of the Palmar nodes",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "bridge = palmar_nodes.entry:bridge",
            "policy = palmar_nodes.entry:policy",
            "control = palmar_nodes.entry:control",
            "twin = palmar_nodes.entry:twin",
            "recorder = palmar_nodes.entry:recorder",
            "device = palmar_nodes.entry:device",
            "fakes = palmar_nodes.entry:fakes",
            "images = palmar_nodes.entry:images",
            "replay = palmar_nodes.entry:replay",
            "ready = palmar_nodes.ready:main",
        ]
    },
)
