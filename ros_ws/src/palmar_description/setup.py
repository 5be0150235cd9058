from glob import glob

from setuptools import setup

NAME = "palmar_description"

setup(
    name=NAME,
    version="0.1.0",
    packages=[NAME],
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/urdf", glob("urdf/*.xacro")),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    maintainer="Palmar maintainers",
    maintainer_email="maintainers@palmar.dev",
    description="Robot description of Palmar robots, generated from their one model",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "describe = palmar_description.describe:main",
        ]
    },
)
