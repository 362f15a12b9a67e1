"""Every way to choose pixels: a policy turns a request into views and says nothing else.

Policies are named by one string everywhere, for example `budget:256`. A model never knows which one
chose; a pair of policy and model that cannot work is one clear error before any arithmetic.
"""
