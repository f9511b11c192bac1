"""Would a plan made beforehand have said what people measured afterwards?"""
