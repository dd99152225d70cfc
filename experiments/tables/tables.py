"""All published tables, by the names of their modules."""

from experiments.tables import (
    akrout2019,
    bartunov2018,
    dellaferrera2022,
    frenkel2021,
    kao_hariharan2024,
    laborieux_zenke2022,
    nokland2019,
    pinchetti2025,
    ren2023,
    sanfiz_akrout2021,
    sanfiz_akrout2021_cifar10,
    webster2021,
)

TABLES = {
    module.TABLE.name: module.TABLE
    for module in (
        frenkel2021,
        dellaferrera2022,
        kao_hariharan2024,
        nokland2019,
        pinchetti2025,
        akrout2019,
        bartunov2018,
        sanfiz_akrout2021,
        sanfiz_akrout2021_cifar10,
        webster2021,
        laborieux_zenke2022,
        ren2023,
    )
}
