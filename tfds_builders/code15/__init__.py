"""CODE-15 %: 345,779 12-lead ECGs of 233,770 patients of Minas Gerais with six abnormalities and mortality."""
