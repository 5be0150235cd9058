from glob import glob

from setuptools import setup

NAME = "palmar_bringup"

setup(
    name=NAME,
    version="0.1.0",
    packages=[NAME],
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", glob("launch/*.launch.py")),
        (f"share/{NAME}/config", glob("config/*.yaml")),
        (f"share/{NAME}/security", glob("security/*.xml")),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    maintainer="Palmar maintainers",
    maintainer_email="maintainers@palmar.dev",
    description="Launch files of Palmar",
    license="Apache-2.0",
)
